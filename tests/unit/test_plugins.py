"""Plugins: an installed package that brings reconnectors for a library's types."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

LIBRARY = """
class Client:
    def __init__(self, host):
        self.host = host
class Special(Client):
    pass
"""
PLUGIN = """
from acme_client import Client
def reconnectors(register):
    register(Client, extract=lambda client: {"host": client.host}, reconnect=lambda kept: Client("again " + kept["host"]))
"""
BEGINNING = """
import sys
import resumable
from resumable.values.codec import Codec
codec = Codec()
def again(value):
    return codec.decode(*codec.encode(value))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory on the path of the program to run: a library, and a distribution with a plugin for it."""
    (tmp_path / "acme_client.py").write_text(LIBRARY)
    (tmp_path / "acme_resumable.py").write_text(PLUGIN)
    info = tmp_path / "acme_resumable-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-resumable\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[resumable.reconnectors]\nacme_client = acme_resumable:reconnectors\n")
    return tmp_path


def run(site: Path, script: str) -> Any:
    """What a program of its own prints."""
    program = f"import sys\nsys.path.insert(0, {str(site)!r})\n{BEGINNING}{textwrap.dedent(script)}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_plugin_is_used_for_its_types_and_subclasses(site: Path) -> None:
    """An object of the library is described and rebuilt as its plugin says, with no call by the program."""
    script = "from acme_client import *; print(again([Client('a')])[0].host, again(Special('b')).host)"
    assert run(site, script) == "again a again b"


def test_a_plugin_is_found_by_what_is_stored(site: Path) -> None:
    """Resuming loads the plugin by the name in the state, before the program has imported the library."""
    kept = run(site, "from acme_client import Client; print(bytes(codec.encode(Client('a')).data).hex())")
    script = f"""
    assert "acme_client" not in sys.modules
    print(codec.decode(1, bytes.fromhex("{kept}")).host)
    """
    assert run(site, script) == "again a"


def test_a_plugin_is_loaded_when_its_types_are_met(site: Path) -> None:
    """Plain data, the standard library's types and the program's own do not look for plugins; others do not load this one."""
    script = """
    import datetime, decimal
    class Own:
        pass
    again([{"plain": 1}, datetime.date(2020, 1, 1), decimal.Decimal(1), Own()])
    assert "importlib.metadata" not in sys.modules
    from resumable.values.registry import GLOBAL
    import lmdb
    assert GLOBAL.lookup(type(lmdb.Error())) is None
    print("acme_resumable" in sys.modules)
    """
    assert run(site, script) == "False"


def test_the_program_comes_before_a_plugin(site: Path) -> None:
    """What the program registers itself wins over what a plugin brings for the same type."""
    script = """
    from acme_client import Client
    resumable.register_reconnector(Client, lambda client: client.host, lambda host: Client("mine " + host))
    print(again(Client("a")).host)
    """
    assert run(site, script) == "mine a"


def test_a_plugins_stand_ins_are_made_late(site: Path) -> None:
    """A plugin may register with eager=False."""
    (site / "acme_resumable.py").write_text(PLUGIN.removesuffix(")\n") + ", eager=False)\n")
    assert run(site, "from acme_client import Client; c = again(Client('a')); print(repr(c)[:9], c.host)") == "<stand-in again a"


def test_a_plugin_takes_the_place_of_a_built_in_handler(site: Path) -> None:
    """A library's own plugin is preferred to the handler that comes with this package."""
    (site / "requests_plugin.py").write_text(
        "import requests\ndef reconnectors(register):\n    register(requests.Session, lambda it: 1, lambda _: 'theirs')\n"
    )
    entries = site / "acme_resumable-1.0.dist-info" / "entry_points.txt"
    entries.write_text("[resumable.reconnectors]\nrequests = requests_plugin:reconnectors\n")
    assert run(site, "import requests\nwith requests.Session() as it: print(again(it))") == "theirs"


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("import nowhere_to_be_found", "failed: ModuleNotFoundError"),
        ("reconnectors = 5", "failed: TypeError: 'int' object is not callable"),
        ("def reconnectors(register):\n    register(5, None, None)", "failed: TypeError"),
    ],
)
def test_a_broken_plugin_is_named(site: Path, plugin: str, message: str) -> None:
    """A plugin that cannot be used is an error that names it and its package, when a type of its library is met."""
    (site / "acme_resumable.py").write_text(plugin)
    script = """
    from acme_client import Client
    again(1), again([])
    for _ in range(2):
        try:
            codec.encode(Client("a"))
        except resumable.PluginError as error:
            print(error.plugin, error.package, error)
    """
    lines = run(site, script).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("acme_resumable:reconnectors acme-resumable") for line in lines)
    assert all(message in line for line in lines)


def test_the_list_of_what_is_covered_loads_nothing(site: Path) -> None:
    """`resumable.reconnectors()` names built-in types, plugins and what was registered, and imports no library for it."""
    script = """
    class Own:
        pass
    resumable.register_reconnector(Own, lambda it: 1, lambda it: Own())
    found = {it.type_name: it for it in resumable.reconnectors()}
    assert found["__main__.Own"].source == "registered"
    assert found["acme_client.*"].source == "plugin"
    assert found["sqlite3.Connection"].source == "built-in"
    assert found["socket.socket"].opt_in and not found["sqlite3.Connection"].opt_in
    assert list(found) == sorted(found)
    print(sorted({"acme_client", "acme_resumable", "sqlite3", "requests", "redis", "dill"} & set(sys.modules)))
    """
    assert run(site, script) == "[]"
