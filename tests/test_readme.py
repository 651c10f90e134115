"""The README: every block of code runs, in order, in a directory of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import resumable
from resumable.values.handlers import BUILT_IN

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESOURCES = (ROOT / "docs" / "resources.md").read_text()
ALSO_CALLED = {
    "TextIOWrapper": ["Open files"], "BufferedReader": ["Open files"], "BufferedWriter": ["Open files"],
    "BufferedRandom": ["Open files"], "FileIO": ["Open files"], "GzipFile": ["gzip"], "BZ2File": ["bz2"], "LZMAFile": ["xz"],
    "CsvWriter": ["csv_writer"], "CsvReader": ["csv_reader"], "connection": ["psycopg2 connections"],
    "BaseClient": ["boto3 clients"], "ServiceResource": ["resources, sub-resources"], "BaseConnector": ["connectors"],
    "TCPConnector": ["connectors"], "UnixConnector": ["connectors"], "ConnectionPool": ["pools"],
    "BlockingConnectionPool": ["pools"], "AsyncDatabase": ["Database"], "AsyncCollection": ["Collection"], "lock": ["Lock"],
    "Parameter": ["tensors"], "UntypedStorage": ["tensors"], "TypedStorage": ["tensors"], "Tensor": ["tensors"],
    "Optimizer": ["optimizers"],
}
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [line.split("#")[0].strip() for language, code in BLOCKS if language == "sh" for line in code.splitlines()]


def run(script: Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"RESUMABLE_HOME": ""}
    command = [sys.executable, "-W", "error", script.name]
    return subprocess.run(command, capture_output=True, text=True, cwd=script.parent, env=environ, check=False)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """Blocks are Python or shell, so none escapes the tests below."""
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_the_blocks_of_the_page_on_resources_run(tmp_path: Path) -> None:
    """The Python blocks of docs/resources.md, one after the other in one script, run without an error or a warning."""
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", RESOURCES, re.MULTILINE | re.DOTALL)
    assert len(blocks) == RESOURCES.count("```") // 2 == 3
    script = tmp_path / "resources.py"
    script.write_text("\n".join(textwrap.dedent(block) for block in blocks))
    done = run(script)
    assert done.returncode == 0, done.stderr


def test_the_page_on_resources_names_every_type() -> None:
    """Each library and class with a built-in handler is on docs/resources.md."""
    for key in BUILT_IN:
        name = key.partition(":")[2]
        names = {name, name.lstrip("_"), name.removesuffix("Handler"), *ALSO_CALLED.get(name, ())}
        assert any(known in RESOURCES for known in names), key


def test_install_and_running_code_stand_at_the_top() -> None:
    """Within its first 25 lines the README installs the package and makes a loop resumable."""
    top = "\n".join(README.splitlines()[:25])
    assert "pip install ." in top
    assert "@resumable.loop" in top
    assert top.count("```") >= 4


def test_the_blocks_run_in_order(tmp_path: Path) -> None:
    """The Python blocks, one after the other in one script, run without an error or a warning."""
    script = tmp_path / "readme.py"
    script.write_text("\n".join(PYTHON))
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "to user0@example.org"
    squares = sum(i * i for i in range(1_000_000))
    for said in (f"\n{squares}\n", "2 converted", "is safe at checkpoint 3", "\n6\n", "base 10: 'two'\n1\n", "broken failed 3 3"):
        assert said in done.stdout


def test_the_first_example_survives_a_kill(tmp_path: Path) -> None:
    """The first block, slowed down and killed as the README says, goes on when it is started again."""
    script = tmp_path / "mail.py"
    slowed = PYTHON[0].replace('print("to", user)', 'print("to", user, flush=True); time.sleep(0.01)').replace("1_000", "200")
    script.write_text("import time\n" + slowed)
    process = subprocess.Popen([sys.executable, script.name], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    seen += process.communicate(timeout=60)[0].splitlines(keepends=True)
    assert process.returncode == -signal.SIGKILL
    assert len(seen) < 200
    done = run(script)
    assert done.returncode == 0, done.stderr
    again = done.stdout.splitlines(keepends=True)
    assert again[0] in (seen[-1], f"to user{len(seen)}@example.org\n")
    assert sorted({*seen, *again}) == sorted(f"to user{number}@example.org\n" for number in range(200))
    assert len(seen) + len(again) <= 201


@pytest.mark.parametrize("command", SHELL)
def test_shell_commands_exist(command: str, tmp_path: Path) -> None:
    """Each command of the shell blocks is one that there is: a target of the Makefile, or a module that runs."""
    if command.startswith("make "):
        assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif command.startswith("python -m "):
        with resumable.Driver(tmp_path / "work") as driver:
            driver.runs()
        done = subprocess.run(
            [sys.executable, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    else:
        assert command == "pip install ."  # tests/test_packaging.py does that


def test_public_names_in_the_readme_exist() -> None:
    """Errors and functions that the README names are there."""
    named = set(re.findall(r"`(\w+(?:Error|Warning))`", README)) | set(re.findall(r"`resumable\.(\w+)\(", README))
    assert len(named) > 15
    assert named <= set(resumable.__all__)


def test_links_lead_somewhere() -> None:
    """Files that the README links to exist."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
