"""asyncpg connections: connected again with the same parameters. They come back under `arun` alone.

Kept: host, port, database, user, TLS, server settings, timeouts and the sizes of the statement cache, record class, the
class; of what SET changed: application_name, TimeZone, DateStyle, IntervalStyle (and what else a newer server reports).

Refused: an open transaction, listeners, loggers of queries, connections of a pool or closed ones.

Pitfalls: type codecs (set_type_codec) and other settings made by SET, such as search_path, cannot be seen in a connection:
set them again when the job starts, or give `server_settings` when it is made. It goes back to the host that it had got of
several. Client certificates are not seen: register_reconnector where the server wants one.

Not kept: prepared statements, temporary tables, advisory locks. The password has to be in the environment or in .pgpass.
Cost: about 100 µs; connecting 10 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from resumable.values.handlers.postgres_login import needed_password
from resumable.values.registry import Handler, alive

if TYPE_CHECKING:
    import asyncpg

# What a server reports unasked, of that which SET can change.
_REPORTED: Final = (
    "application_name", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "search_path",
    "default_transaction_read_only",
)  # fmt: skip
# Made by the library for a connection that may go without TLS: not to be kept, as a context means that it must not.
_WITHOUT_CONTEXT: Final = ("disable", "allow", "prefer")


def extract(connection: Any) -> dict[str, Any]:
    """What it takes to make an equal connection. Raises LiveResourceError."""
    if connection.is_closed():
        raise alive(connection, "it is closed (keep its parameters, or connect again before the checkpoint)")
    if connection.is_in_transaction():
        raise alive(connection, "it has an open transaction (commit or roll back before the checkpoint)")
    try:
        return _describe(connection)
    except AttributeError as error:
        import asyncpg

        reason = f"its parameters cannot be read on asyncpg {asyncpg.__version__}: {error} (register_reconnector for it)"
        raise alive(connection, reason) from error


def _describe(connection: Any) -> dict[str, Any]:
    if connection._proxy is not None:
        raise alive(connection, "it belongs to a pool (give the pool by Driver(resources=...), and take one per item)")
    heard = (connection._listeners, connection._log_listeners, connection._termination_listeners, connection._query_loggers)
    if any(heard):
        raise alive(connection, "it has listeners (remove them before the checkpoint, and add them when the job starts)")
    address, given, settings = connection._addr, connection._params, connection.get_settings()
    where = {"host": address} if isinstance(address, str) else {"host": address[0], "port": address[1]}
    # Something that is called for a password, such as one that makes tokens, is no secret itself.
    supplier = given.password if callable(given.password) else None
    known = {**where, "user": given.user, "dbname": given.database}
    return {
        "class": type(connection),
        "record_class": connection._protocol.get_record_class(),
        "where": {**where, "user": given.user, "database": given.database},
        "supplier": supplier,
        "password": None if supplier else needed_password(given.password, known),
        "ssl": given.ssl if given.sslmode.name not in _WITHOUT_CONTEXT else given.sslmode.name,
        "target_session_attrs": given.target_session_attrs.value,
        "direct_tls": given.ssl_negotiation.name == "direct" if hasattr(given, "ssl_negotiation") else given.direct_tls,
        "server_settings": None if given.server_settings is None else list(given.server_settings.items()),
        "config": connection._config._asdict(),
        # Pairs, as names such as password_encryption would count for secrets.
        "reported": [(name, value) for name in _REPORTED if (value := getattr(settings, name, None)) is not None],
    }


def identify(connection: Any) -> dict[str, Any]:
    """Which server, database and user."""
    return {"address": connection._addr, "database": connection._params.database, "user": connection._params.user}


async def reconnect(description: dict[str, Any]) -> asyncpg.Connection:
    """An equal connection. Raises OSError or asyncpg.PostgresError."""
    import asyncpg

    server_settings = description["server_settings"]
    connection = await asyncpg.connect(
        **description["where"],
        **description["config"],
        password=description["supplier"] or description["password"],
        ssl=description["ssl"],
        direct_tls=description["direct_tls"],
        target_session_attrs=description["target_session_attrs"],
        server_settings=None if server_settings is None else dict(server_settings),
        connection_class=description["class"],
        record_class=description["record_class"],
    )
    try:
        settings = connection.get_settings()
        for name, value in description["reported"]:
            if getattr(settings, name, None) != value:
                await connection.execute("SELECT set_config($1, $2, false)", name, value)
    except BaseException:
        connection.terminate()
        raise
    return connection


HANDLERS: Final = {"asyncpg.connection:Connection": Handler("asyncpg.connection:Connection", extract, reconnect, identify)}
