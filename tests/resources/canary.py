"""Finding a secret in a directory, in whatever form it was written."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

SECRET = "c4nary/p@ss+w0rd"  # looks other in most forms below, and is no word of any other text


def forms(secret: str = SECRET) -> dict[str, bytes]:
    """How it would look in a file, by the name of the form."""
    data = secret.encode()
    found = {
        "UTF-8": data,
        "UTF-16": secret.encode("utf-16-le"),
        "UTF-16, big end first": secret.encode("utf-16-be"),
        "percent-encoded": quote(secret, safe="").encode(),
        "percent-encoded, but slashes": quote(secret).encode(),
        "hexadecimal": data.hex().encode(),
        "backwards": data[::-1],
    }
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data)
        found[f"base64 behind {before}"] = whole[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
    return found


def found_in(directory: Path, secret: str = SECRET) -> Iterator[str]:
    """Where it is found below a directory: "file: form", in names of files too."""
    for path in sorted(directory.rglob("*")):
        data = str(path.relative_to(directory)).encode() + (path.read_bytes() if path.is_file() else b"")
        yield from (f"{path.relative_to(directory)}: {form}" for form, text in forms(secret).items() if text in data)


def all_bytes(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())
