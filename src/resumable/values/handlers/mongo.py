"""pymongo clients, sync and async, with their databases and collections: made anew from the arguments they were made with.

Kept: all that was given to the client, as hosts or URI, options, TLS, codec options, concerns; a database or collection
with its client, its name and the options that differ; those that shared a client share one again. A subclass keeps its
class if it is made as the library's own. The client connects in the background, as the first one did.

Not kept: metadata added by `append_metadata`, attributes added to the object, the server's sessions. Refused: closed
clients, automatic encryption (it holds keys), sessions, cursors, change streams.

The password has to be in the environment, in the URI (there as it is or percent-encoded) or as an argument. Event
listeners and the like are saved as any object is. Cost: about 70 µs a client, 90 µs a collection with its client.
"""

from __future__ import annotations

from typing import Any, Final

from resumable.values.registry import Handler, alive

_OPTIONS: Final = ("codec_options", "read_preference", "write_concern", "read_concern")


def extract_client(client: Any) -> dict[str, Any]:
    """The arguments that a client was made with. Raises LiveResourceError."""
    _check_class(client)
    settings = _arguments(client)
    # Older versions tell it of the topology alone.
    if (client if "_closed" in vars(client) else client._topology)._closed:
        raise alive(client, "it is closed (keep what it is made from)")
    if settings.get("auto_encryption_opts") is not None:
        raise alive(client, "its auto_encryption_opts hold keys that cannot be seen (use register_reconnector for it)")
    return {"class": type(client), "settings": settings}


def identify_client(client: Any) -> dict[str, Any]:
    """Which servers, user and default database."""
    settings = _arguments(client)
    hosts = settings["host"]
    return {
        "hosts": [_without_password(host) for host in ([hosts] if isinstance(hosts, str) else hosts or ())],
        **{name: settings.get(name) for name in ("port", "username", "replicaSet")},
    }


def reconnect_client(description: dict[str, Any]) -> Any:
    """An equal client. Raises pymongo.errors.ConfigurationError and others for settings that do not hold any more."""
    return description["class"](**description["settings"])


def extract_database(database: Any) -> dict[str, Any]:
    """A database by its client and name."""
    return _described(database, "client")


def identify_database(database: Any) -> dict[str, Any]:
    return {**identify_client(database.client), "database": database.name}


def extract_collection(collection: Any) -> dict[str, Any]:
    """A collection by its database and name."""
    return _described(collection, "database")


def identify_collection(collection: Any) -> dict[str, Any]:
    return {**identify_database(collection.database), "collection": collection.name}


def reconnect_in_parent(description: dict[str, Any]) -> Any:
    """A database of its client, or a collection of its database."""
    parent = description["client" if "client" in description else "database"]
    return description["class"](parent, description["name"], **description["options"])


def _described(resource: Any, parent_name: str) -> dict[str, Any]:
    """A resource by its parent, which is its attribute of that name, and by the options that are not the parent's."""
    _check_class(resource)
    parent = getattr(resource, parent_name)
    options = {name: mine for name in _OPTIONS if (mine := getattr(resource, name)) != getattr(parent, name)}
    return {"class": type(resource), parent_name: parent, "name": resource.name, "options": options}


def _arguments(client: Any) -> dict[str, Any]:
    # No public name tells them all. Older versions have them under a mangled name.
    for name in ("_init_kwargs", "_MongoClient__init_kwargs"):
        found = vars(client).get(name)
        if isinstance(found, dict) and "host" in found:
            return dict(found)
    raise alive(client, "this version of pymongo does not tell what it was made from (keep that, or use register_reconnector)")


def _without_password(host: str) -> str:
    """A host, or a URI without password and options."""
    scheme, _, rest = host.rpartition("://")
    user, _, where = rest.partition("?")[0].rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}@{where}" if scheme else host


def _check_class(resource: Any) -> None:
    """Refuse classes that are made in a way of their own, which is not known here."""
    for name in ("__init__", "__new__"):
        maker = next(base for base in type(resource).__mro__ if name in vars(base))
        if maker is not object and maker.__module__.partition(".")[0] not in ("pymongo", "typing"):
            reason = f"its class has {name} of its own (register_reconnector for {type(resource).__qualname__})"
            raise alive(resource, reason)


_KINDS: Final = {
    "mongo_client": ("MongoClient", extract_client, reconnect_client, identify_client),
    "database": ("Database", extract_database, reconnect_in_parent, identify_database),
    "collection": ("Collection", extract_collection, reconnect_in_parent, identify_collection),
}


def _handlers() -> dict[str, Handler]:
    """By the names of the sync, the async and the older modules."""
    found = {}
    for module, (name, extract, reconnect, identify) in _KINDS.items():
        for key in (
            f"pymongo.synchronous.{module}:{name}",
            f"pymongo.asynchronous.{module}:Async{name}",
            f"pymongo.{module}:{name}",
        ):
            found[key] = Handler(key, extract, reconnect, identify)
    return found


HANDLERS: Final = _handlers()
