"""The password of a PostgreSQL connection: it is left out of a description when a password file gives it back.

libpq, and asyncpg likewise, reads .pgpass and the service file by itself when a connection is made. Any other password
goes into the description under `password`, where the secret scan finds it.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_FIELD: Final = re.compile(r"((?:\\.|[^:\\])*)(?::|$)")
_ANY: Final = "*"


def needed_password(password: Any, parameters: Mapping[str, Any]) -> Any:
    """The password to store, or None when there is none or a file has it. `parameters` are those of libpq."""
    if not password or password in (_from_passfile(parameters), _from_service_file(parameters)):
        return None
    return password


def _from_passfile(parameters: Mapping[str, Any]) -> str | None:
    """What .pgpass has for this connection: the first line that fits counts."""
    path = Path(parameters.get("passfile") or os.environ.get("PGPASSFILE") or "~/.pgpass").expanduser()
    if not path.is_file() or path.stat().st_mode & 0o077:  # libpq reads none that others can read
        return None
    host = str(parameters.get("host") or "localhost")
    if host.startswith("/"):  # a socket's directory
        host = "localhost"
    wanted = [host, *(str(parameters.get(name) or "") for name in ("port", "dbname", "user"))]
    for line in path.read_text(errors="surrogateescape").splitlines():
        fields = [re.sub(r"\\(.)", r"\1", field) for field in _FIELD.findall(line)]
        if len(fields) > 4 and all(field in (_ANY, want) for field, want in zip(fields, wanted, strict=False)):
            return fields[4]
    return None


def _from_service_file(parameters: Mapping[str, Any]) -> str | None:
    """What the service file has for the service that this connection was made by."""
    service = parameters.get("service") or os.environ.get("PGSERVICE")
    if not service:
        return None
    files = [Path(os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf").expanduser()]
    if "PGSYSCONFDIR" in os.environ:
        files.append(Path(os.environ["PGSYSCONFDIR"], "pg_service.conf"))
    for file in files:
        known = configparser.ConfigParser(interpolation=None, strict=False)
        known.read(file)
        if known.has_section(service):
            return known.get(service, "password", fallback=None)
    return None
