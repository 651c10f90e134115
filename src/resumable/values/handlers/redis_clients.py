"""redis.Redis, redis.asyncio.Redis and their connection pools: made anew from their settings, connected at the first use.

Kept: host, port or socket path, database, user, timeouts, TLS, retries, protocol, decoding and all other settings of the
pool, its class and size; clients that shared a pool share one again; callbacks for responses that were set by hand; the
class, if it is made as the library's own. A closed client comes back as redis has it: it connects when it is used.

Not kept: what a client's cache held, fieldsets declared with `himport_prepare`, attributes added to the client, and what
the server knew of one connection: WATCH, MULTI, SELECT, CLIENT commands (set database and name when the client is made).
Refused: credential providers, pipelines, subscriptions, locks, Sentinel and Cluster clients.

The password has to be in the environment. Cost: about 90 µs, much of it for the retry policy, an object of the library;
70 µs for a client from a URL.
"""

from __future__ import annotations

from typing import Any, Final

from resumable.values.registry import Handler, alive

# What a pool puts among its settings for its connections, and makes anew itself.
_OF_THE_POOL: Final = frozenset(
    {
        "himport_registry",
        "event_dispatcher",
        "maint_notifications_pool_handler",
        "oss_cluster_maint_notifications_handler",
        "orig_host_address",
        "orig_socket_timeout",
        "orig_socket_connect_timeout",
    }
)
# While a server is under maintenance these settings are others, and the first ones stand under these names.
_BEFORE_MAINTENANCE: Final = {
    "host": "orig_host_address",
    "socket_timeout": "orig_socket_timeout",
    "socket_connect_timeout": "orig_socket_connect_timeout",
}
_WHERE: Final = ("host", "port", "path", "db", "username")

_usual_callbacks: dict[tuple[Any, ...], dict[str, Any]] = {}


def extract_client(client: Any) -> dict[str, Any]:
    """A client's pool and what it has to itself. Raises LiveResourceError."""
    _check_class(client)
    return {
        "class": type(client),
        "pool": client.connection_pool,
        "closes_pool": client.auto_close_connection_pool,
        # The asyncio client has a setting for it, as it connects later; the other one has the connection or not.
        "single_connection": bool(getattr(client, "single_connection_client", client.connection is not None)),
        "callbacks": _own_callbacks(client),
    }


def identify_client(client: Any) -> dict[str, Any]:
    """Which server, database and user."""
    return identify_pool(client.connection_pool)


def reconnect_client(description: dict[str, Any]) -> Any:
    """An equal client. Raises redis.RedisError when it keeps to a single connection and there is none."""
    client = description["class"](
        connection_pool=description["pool"], single_connection_client=description["single_connection"]
    )
    client.auto_close_connection_pool = description["closes_pool"]
    for command, callback in description["callbacks"].items():
        client.set_response_callback(command, callback)
    return client


def extract_pool(pool: Any) -> dict[str, Any]:
    """A pool's settings. Raises LiveResourceError."""
    _check_class(pool)
    given = pool.connection_kwargs
    if given.get("credential_provider") is not None:
        reason = "its credential_provider may hold secrets that cannot be seen (give username and password instead, or use "
        raise alive(pool, f"{reason}register_reconnector for the client's pool)")
    # The library marks what was not given by a bare object(), which is another one in the next process.
    settings = {name: value for name, value in given.items() if name not in _OF_THE_POOL and type(value) is not object}
    settings |= {name: given[first] for name, first in _BEFORE_MAINTENANCE.items() if name in settings and first in given}
    if getattr(pool, "cache", None) is not None:
        settings["cache_config"] = pool.cache.config
    if hasattr(pool, "queue_class"):
        settings["queue_class"] = pool.queue_class
    if hasattr(pool, "timeout"):  # only a BlockingConnectionPool has one
        settings["timeout"] = pool.timeout
    return {
        "class": type(pool),
        "connection_class": pool.connection_class,
        "max_connections": pool.max_connections,
        "settings": settings,
    }


def identify_pool(pool: Any) -> dict[str, Any]:
    """Which server, database and user."""
    settings = extract_pool(pool)["settings"]
    return {name: settings.get(name) for name in _WHERE}


def reconnect_pool(description: dict[str, Any]) -> Any:
    """An equal pool, without connections yet."""
    return description["class"](
        connection_class=description["connection_class"],
        max_connections=description["max_connections"],
        **description["settings"],
    )


def _check_class(resource: Any) -> None:
    """Refuse classes that are made in a way of their own, which is not known here."""
    for name in ("__init__", "__new__"):
        maker = next(base for base in type(resource).__mro__ if name in vars(base))
        if maker is not object and maker.__module__.partition(".")[0] != "redis":
            reason = f"its class has {name} of its own (register_reconnector for {type(resource).__qualname__})"
            raise alive(resource, reason)


def _own_callbacks(client: Any) -> dict[str, Any]:
    """The response callbacks that the library does not set itself."""
    pool = client.connection_pool
    kind = (type(client), *(pool.connection_kwargs.get(name) for name in ("protocol", "legacy_responses")))
    usual = _usual_callbacks.get(kind)
    if usual is None:
        usual = _usual_callbacks[kind] = dict(type(client)(connection_pool=pool).response_callbacks)
    callbacks = client.response_callbacks
    if callbacks == usual:
        return {}
    return {command: it for command, it in callbacks.items() if usual.get(command) is not it}


_CLIENTS: Final = ("redis.client:Redis", "redis.asyncio.client:Redis")
_POOLS: Final = (
    "redis.connection:ConnectionPool",
    "redis.connection:BlockingConnectionPool",
    "redis.asyncio.connection:ConnectionPool",
    "redis.asyncio.connection:BlockingConnectionPool",
)

HANDLERS: Final = {
    **{key: Handler(key, extract_client, reconnect_client, identify_client) for key in _CLIENTS},
    **{key: Handler(key, extract_pool, reconnect_pool, identify_pool) for key in _POOLS},
}
