"""psycopg and psycopg2 connections: connected again with the same parameters and the settings of their session.

Kept: all parameters of libpq (host, port, database, user, options, sslmode, application_name ...), autocommit, isolation
level, read_only, deferrable, row and cursor factories, prepare_threshold and prepared_max, client encoding, what SET changed
(search_path, TimeZone, timeouts ...), SET ROLE, the class.

Refused: an open or failed transaction, a query under way, pipeline mode, a prepared transaction, temporary tables,
LISTEN, converters registered for this connection alone, connections of a pool or closed ones, psycopg2's asynchronous ones.

Not kept: advisory locks, prepared statements, cursors WITH HOLD, handlers of notices, attributes added to a connection,
SET of names with a dot. psycopg goes back to the host that it had got of several; the address of an AsyncConnection's
host is looked up anew.

The password has to be in the environment (PGPASSWORD or any other name), in .pgpass or in the service file.
Cost: about 1 ms and the way to the server, which is asked once (psycopg2: three times); connecting 6 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from resumable.values.handlers.postgres_login import needed_password
from resumable.values.registry import Handler, alive

if TYPE_CHECKING:
    import psycopg
    import psycopg2.extensions

# What a new session would not have. Names that begin with `transaction_` are of the transaction that asks.
_SESSION: Final = """
    SELECT 'setting', name, setting FROM pg_settings WHERE source = 'session' AND name !~ '^transaction_'
    UNION ALL SELECT 'setting', 'role', current_setting('role') WHERE current_setting('role') <> 'none'
    UNION ALL SELECT 'LISTEN', channel, '' FROM pg_listening_channels() AS channel
    UNION ALL SELECT 'temporary table', relname, '' FROM pg_class
    WHERE pg_my_temp_schema() <> 0 AND relnamespace = pg_my_temp_schema() AND relkind IN ('r', 'p', 'v', 'S')
"""
_IDLE: Final = 0  # of libpq's states of a transaction, which both libraries give as they are
_STATES: Final = {
    1: "a query is under way on it (wait for its end before the checkpoint, or read all of its rows)",
    2: "it has an open transaction (commit() or rollback() before the checkpoint)",
    3: "its transaction has failed (rollback() before the checkpoint)",
}
# A role may have fewer rights; the other settings are sent in the encoding of a new session.
_LAST: Final = ("role", "client_encoding")
_IDENTITY: Final = ("host", "port", "dbname", "user")


def _refuse_state(connection: Any, status: int) -> None:
    if status != _IDLE:
        raise alive(connection, _STATES.get(status, "its server is gone (connect again, or keep its parameters)"))


def _settings(connection: Any, session: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """What SET changed. Rows of three: in a pair `password_encryption` would count for a secret."""
    settings = []
    for kind, name, value in session:
        if kind == "LISTEN":
            raise alive(connection, f"it listens to {name!r} (UNLISTEN before the checkpoint, LISTEN after it)")
        if kind != "setting":
            raise alive(connection, f"it has the {kind} {name!r} (drop it before the checkpoint, or make it an ordinary one)")
        settings.append((kind, name, value))
    return sorted(settings, key=lambda setting: _LAST.index(setting[1]) if setting[1] in _LAST else -1)


# ---- psycopg


def extract_psycopg(connection: Any) -> dict[str, Any]:
    """What it takes to make an equal connection. Raises LiveResourceError."""
    if connection.closed:
        raise alive(connection, "it is closed (keep its parameters, or connect again before the checkpoint)")
    if hasattr(connection, "_pool"):  # set for those of a pool alone
        raise alive(connection, "it belongs to a pool (give the pool by Driver(resources=...), and take one per item)")
    if getattr(connection, "_tpc", None) is not None:
        raise alive(connection, "it has a prepared transaction (tpc_commit() or tpc_rollback() before the checkpoint)")
    info = connection.info
    if info.pipeline_status != 0:
        raise alive(connection, "it is in pipeline mode (leave the pipeline before the checkpoint)")
    _refuse_state(connection, info.transaction_status)
    _check_adapters(connection)
    parameters = info.get_parameters()
    if _is_async(connection) and parameters.get("host"):
        parameters.pop("hostaddr", None)  # the library looked it up itself
    level = connection.isolation_level
    return {
        "class": type(connection),
        "parameters": parameters,
        # In bytes, as the library would decode it by the encoding of the session.
        "password": needed_password((connection.pgconn.password or b"").decode(), {"port": info.port, **parameters}),
        "settings": _settings(connection, _session_of_psycopg(connection)),
        "modes": {
            "autocommit": connection.autocommit,
            "isolation_level": None if level is None else int(level),
            "read_only": connection.read_only,
            "deferrable": connection.deferrable,
        },
        "attributes": {
            name: getattr(connection, name)
            for name in ("prepare_threshold", "prepared_max", "row_factory", "cursor_factory", "server_cursor_factory")
        },
    }


def identify_psycopg(connection: psycopg.BaseConnection[Any]) -> dict[str, Any]:
    """Which server, database and user."""
    return {name: getattr(connection.info, name) for name in _IDENTITY}


def reconnect_psycopg(description: dict[str, Any]) -> psycopg.Connection[Any]:
    """An equal connection. Raises psycopg.Error."""
    connection: psycopg.Connection[Any] = description["class"].connect(**_connect_arguments(description))
    try:
        _restore_psycopg(connection, description)
        for name, value in description["modes"].items():
            setattr(connection, name, value)
    except BaseException:
        connection.close()
        raise
    return connection


async def reconnect_psycopg_async(description: dict[str, Any]) -> psycopg.AsyncConnection[Any]:
    """An equal connection. Raises psycopg.Error."""
    connection: psycopg.AsyncConnection[Any] = await description["class"].connect(**_connect_arguments(description))
    try:
        _restore_psycopg(connection, description)
        for name, value in description["modes"].items():
            await getattr(connection, f"set_{name}")(value)
    except BaseException:
        await connection.close()
        raise
    return connection


def _connect_arguments(description: dict[str, Any]) -> dict[str, Any]:
    password = description["password"]
    return description["parameters"] if password is None else {**description["parameters"], "password": password}


def _is_async(connection: Any) -> bool:
    import psycopg

    return isinstance(connection, psycopg.AsyncConnection)


def _check_adapters(connection: Any) -> None:
    """Refuse converters of this connection's own: those for all are the program's, and there again when it starts."""
    import psycopg

    try:
        own, shared = (
            [vars(adapters)[name] for name in ("_dumpers", "_dumpers_by_oid", "_loaders")]
            for adapters in (connection.adapters, psycopg.adapters)
        )
    except KeyError as error:
        reason = f"its converters cannot be read on psycopg {psycopg.__version__} (register_reconnector for it)"
        raise alive(connection, reason) from error
    if own != shared:
        reason = "it has converters of its own (register them in psycopg.adapters before it is made, or register_reconnector)"
        raise alive(connection, reason)


def _session_of_psycopg(connection: Any) -> list[tuple[str, str, str]]:
    """Below the connection, for above it a query would begin a transaction, or have to be awaited."""
    from psycopg.pq import ExecStatus

    result = connection.pgconn.exec_(_SESSION.encode())
    if result.status != ExecStatus.TUPLES_OK:
        raise alive(connection, _unanswered(result.error_message.decode(errors="replace")))
    encoding = connection.info.encoding

    def text(row: int, column: int) -> str:
        return (result.get_value(row, column) or b"").decode(encoding)

    return [(text(row, 0), text(row, 1), text(row, 2)) for row in range(result.ntuples)]


def _restore_psycopg(connection: Any, description: dict[str, Any]) -> None:
    import psycopg
    from psycopg.pq import ExecStatus

    encoding = connection.info.encoding
    for _, name, value in description["settings"]:
        values = [name.encode(encoding), value.encode(encoding)]
        result = connection.pgconn.exec_params(b"SELECT set_config($1, $2, false)", values)
        if result.status != ExecStatus.TUPLES_OK:
            reason = result.error_message.decode(errors="replace")
            raise psycopg.OperationalError(f"the setting {name} of its session could not be made: {reason}")
    for name, attribute in description["attributes"].items():
        setattr(connection, name, attribute)


def _unanswered(reason: str) -> str:
    return f"its server does not tell the settings of the session: {reason.strip()} (connect again, or register_reconnector)"


# ---- psycopg2


def extract_psycopg2(connection: psycopg2.extensions.connection) -> dict[str, Any]:
    """What it takes to make an equal connection. Raises LiveResourceError."""
    import psycopg2

    if connection.closed:
        raise alive(connection, "it is closed (keep its parameters, or connect again before the checkpoint)")
    if connection.async_:
        raise alive(connection, "it is asynchronous (keep its parameters, and connect when the job starts)")
    if connection.status == psycopg2.extensions.STATUS_PREPARED:
        raise alive(connection, "it has a prepared transaction (tpc_commit() or tpc_rollback() before the checkpoint)")
    _refuse_state(connection, connection.info.transaction_status)
    if connection.string_types or connection.binary_types:
        raise alive(connection, "it has converters of its own (register_type without a connection, or register_reconnector)")
    if getattr(connection, "__dict__", None):  # a plain one has none
        raise alive(connection, "its class has attributes of its own (register_reconnector for that class)")
    parameters = {name: value for name, value in connection.get_dsn_parameters().items() if value}
    if "service" in connection.dsn:  # the one parameter that is not among them
        parameters["service"] = psycopg2.extensions.parse_dsn(connection.dsn).get("service")
    try:
        session = _session_of_psycopg2(connection)
    except psycopg2.Error as error:
        raise alive(connection, _unanswered(str(error))) from error
    return {
        "class": type(connection),
        "parameters": parameters,
        "password": needed_password(_password_of_psycopg2(connection), parameters),
        # Its own attribute, as the library has to know it too.
        "encoding": connection.encoding,
        "settings": _settings(connection, session),
        "modes": {name: getattr(connection, name) for name in ("isolation_level", "readonly", "deferrable", "autocommit")},
        "cursor_factory": connection.cursor_factory,
    }


def identify_psycopg2(connection: psycopg2.extensions.connection) -> dict[str, Any]:
    """Which server, database and user."""
    return {name: getattr(connection.info, name) for name in _IDENTITY}


def reconnect_psycopg2(description: dict[str, Any]) -> psycopg2.extensions.connection:
    """An equal connection. Raises psycopg2.Error."""
    import psycopg2

    connection: psycopg2.extensions.connection = psycopg2.connect(
        **_connect_arguments(description), connection_factory=description["class"]
    )
    try:
        if connection.encoding != description["encoding"]:
            connection.set_client_encoding(description["encoding"])
        with closing(psycopg2.extensions.cursor(connection)) as cursor:
            for _, name, value in description["settings"]:
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()
        for name, mode in description["modes"].items():
            setattr(connection, name, mode)
        connection.cursor_factory = description["cursor_factory"]
    except BaseException:
        connection.close()
        raise
    return connection


def _password_of_psycopg2(connection: psycopg2.extensions.connection) -> str:
    """The password as it was given: the library decodes it by the encoding of the session."""
    from psycopg2.extensions import encodings

    password: str = connection.info.password or ""
    return password if password.isascii() else password.encode(encodings[connection.encoding]).decode()


def _session_of_psycopg2(connection: psycopg2.extensions.connection) -> list[tuple[str, str, str]]:
    from psycopg2.extensions import cursor as plain_cursor

    try:
        with closing(plain_cursor(connection)) as cursor:
            cursor.execute(_SESSION)
            rows: list[tuple[str, str, str]] = cursor.fetchall()
            return rows
    finally:
        if not connection.closed and not connection.autocommit:
            connection.rollback()  # the transaction that the query began: there was none before


_handler = partial(Handler, extract=extract_psycopg, identify=identify_psycopg)

HANDLERS: Final = {
    "psycopg:Connection": _handler("psycopg:Connection", reconnect=reconnect_psycopg),
    "psycopg:AsyncConnection": _handler("psycopg:AsyncConnection", reconnect=reconnect_psycopg_async),
    "psycopg2.extensions:connection": Handler(
        "psycopg2.extensions:connection", extract_psycopg2, reconnect_psycopg2, identify_psycopg2
    ),
}
