"""boto3 and botocore clients, boto3 resources and sessions: made anew from their settings, connected at the first use.

Kept: service, region, endpoint, API version, TLS verification, the options of `Config`, and where the credentials come
from: the default chain, a profile, or none. Credentials given by hand have to be in the environment. A resource such as
`s3.Bucket("x")` comes back with its client and identifiers; those that shared a client share one again.

Not kept: event handlers (`client.meta.events`), a `user_agent` given by hand, and what a resource has loaded, which it
loads again; only where it cannot, what it was filled with is kept. Refused: credentials of which it cannot be told where
they come from (roles and sign-ons of a profile; with AWS_PROFILE set and `boto3.client` they can), bearer tokens,
paginators, waiters, bodies not read yet, collections, batch writers.

Cost: about 40 µs a client or a resource with it, 110 µs with keys given by hand. Coming back takes 0.1 s, a resource 0.3 s, as
boto3 reads its service models.
"""

from __future__ import annotations

import os
import weakref
from contextlib import closing
from typing import Any, Final

from resumable.values.registry import Handler, alive

_NOT_KEPT: Final = frozenset({"region_name", "signature_version", "user_agent"})
_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_FILES: Final = ("shared-credentials-file", "config-file")
_SURROUNDINGS: Final = ("iam-role", "container-role")  # the machine's or container's own
_KEEP_SESSION: Final = "(set AWS_PROFILE and use boto3.client, or keep the names and make it when the job starts)"

# From which profile static credentials are: read once.
_profiles: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()


def extract_client(client: Any) -> dict[str, Any]:
    """A client's settings. Raises LiveResourceError."""
    if type(client).__module__ != "botocore.client":
        raise alive(client, "it is a client of another library (register_reconnector for it)")
    try:
        credentials, token = client._request_signer._credentials, client._request_signer._auth_token
        verify = client._endpoint.http_session._verify
    except AttributeError as error:
        reason = f"this version of botocore does not tell how it was made: {error} (use register_reconnector for it)"
        raise alive(client, reason) from error
    if token is not None:
        raise alive(client, "it uses a bearer token, which is not saved (keep the names, and make it when the job starts)")
    config, model = client.meta.config, client.meta.service_model
    return {
        "service": model.service_name,
        "region": client.meta.region_name,
        "endpoint": client.meta.endpoint_url,
        "api_version": model.api_version,
        "verify": verify,
        "source": _source(client, credentials),
        # Not by itself when it is the mark for no signature, which cannot be saved.
        "signature": str(config.signature_version) if isinstance(config.signature_version, str) else None,
        "options": {name: getattr(config, name) for name in config.OPTION_DEFAULTS if name not in _NOT_KEPT},
    }


def identify_client(client: Any) -> dict[str, Any]:
    """Which service, where."""
    return {
        "service": client.meta.service_model.service_name,
        "region": client.meta.region_name,
        "endpoint": client.meta.endpoint_url,
    }


def reconnect_client(description: dict[str, Any]) -> Any:
    """An equal client, not connected yet. Raises botocore.exceptions.BotoCoreError for settings that do not hold any more.

    A client tells what holds, not what it was given. So one is made with what every client needs, and where it comes out
    otherwise, a second one with the difference: whatever boto3 chooses by itself stays its own choice.
    """
    import botocore
    from botocore.config import Config

    session = _session(description["source"])
    endpoint, signature = description["endpoint"], description["signature"]
    settings: dict[str, Any] = {
        "region_name": description["region"],
        "verify": description["verify"],
        "use_ssl": not endpoint.startswith("http:"),
    }
    plain = session.client(description["service"], **settings)
    with_defaults = plain.meta.config
    options = {
        name: value
        for name, value in description["options"].items()
        # An option that this version does not have any more, and that was not set, is none that is missed.
        if getattr(with_defaults, name, None) != value
    }
    if signature is None:
        options["signature_version"] = botocore.UNSIGNED
    elif with_defaults.signature_version != signature:
        options["signature_version"] = signature
    more: dict[str, Any] = {"config": Config(**options)} if options else {}
    if plain.meta.endpoint_url != endpoint:
        more["endpoint_url"] = endpoint
    if plain.meta.service_model.api_version != description["api_version"]:
        more["api_version"] = description["api_version"]
    if not more:
        return plain
    plain.close()
    return session.client(description["service"], **settings, **more)


def extract_resource(resource: Any) -> dict[str, Any]:
    """A resource by its client, kind and identifiers. Raises LiveResourceError."""
    if type(resource).__module__ != "boto3.resources.factory":
        raise alive(resource, "it is a resource of another library (register_reconnector for it)")
    meta = resource.meta
    return {
        "client": meta.client,
        "service": meta.service_name,
        "kind": _kind(resource),
        "identifiers": [getattr(resource, name) for name in meta.identifiers],
        "data": None if hasattr(resource, "load") else meta.data,
    }


def identify_resource(resource: Any) -> dict[str, Any]:
    """Which thing of which service, where."""
    identifiers = {name: getattr(resource, name) for name in resource.meta.identifiers}
    return {**identify_client(resource.meta.client), "kind": _kind(resource), "identifiers": identifiers}


def reconnect_resource(description: dict[str, Any]) -> Any:
    """An equal resource around the client that comes back with it."""
    import boto3

    client = description["client"]
    # Only for its class; credentials are not looked for, and nothing is sent.
    made = boto3.Session("none", "none").resource(description["service"], region_name=client.meta.region_name or "us-east-1")
    with closing(made.meta.client):
        resource = type(made)(client=client)
    if description["kind"] is not None:
        resource = getattr(resource, description["kind"])(*description["identifiers"])
        resource.meta.data = description["data"]
    return resource


def _kind(resource: Any) -> str | None:
    """Its name among the resources of its service; None for the service itself."""
    name = type(resource).__name__.rpartition(".")[2]
    return None if name == "ServiceResource" else name


def extract_session(session: Any) -> dict[str, Any]:
    """A session's region, profile, and credentials if they were given by hand. Raises LiveResourceError."""
    import boto3

    if type(session).__init__ is not boto3.Session.__init__:
        raise alive(session, "its class has __init__ of its own (register_reconnector for that class)")
    try:
        below = session._session
        credentials, set_by_hand = below._credentials, below.instance_variables()
    except AttributeError as error:
        reason = f"this version of boto3 does not tell how it was made: {error} (use register_reconnector for it)"
        raise alive(session, reason) from error
    source = {"profile": set_by_hand.get("profile")}
    if credentials is not None and credentials.method == "explicit":
        source |= _by_hand(credentials)
    return {"class": type(session), "region": set_by_hand.get("region"), "source": source}


def identify_session(session: Any) -> dict[str, Any]:
    return {"region": session.region_name, "profile": session.profile_name}


def reconnect_session(description: dict[str, Any]) -> Any:
    """An equal session. Raises botocore.exceptions.ProfileNotFound."""
    return _session(description["source"], description["class"], description["region"])


# ---- credentials


def _source(client: Any, credentials: Any) -> dict[str, Any]:
    """Where a client's credentials come from, as arguments of a session."""
    if credentials is None:
        return {"profile": None}
    method = credentials.method
    if method == "explicit":
        return _by_hand(credentials)
    if method == "env" and credentials.access_key == os.environ.get("AWS_ACCESS_KEY_ID"):
        return {"profile": None}
    if method in _FILES:
        return {"profile": _profile(client, credentials)}
    if method in _SURROUNDINGS or _of_default_session(credentials):
        return {"profile": None}
    raise alive(client, f"it cannot be told from which profile its credentials are, got by {method!r} {_KEEP_SESSION}")


def _by_hand(credentials: Any) -> dict[str, Any]:
    known = credentials.get_frozen_credentials()
    return {"profile": None} | dict(zip(_KEYS, (known.access_key, known.secret_key, known.token), strict=True))


def _of_default_session(credentials: Any) -> bool:
    """Whether they are those of `boto3.client` and `boto3.resource`, which take what the surroundings give."""
    import boto3

    default = boto3.DEFAULT_SESSION
    if default is None or "profile" in default._session.instance_variables():
        return False
    return default._session._credentials is credentials


def _profile(client: Any, credentials: Any) -> str | None:
    """The profile with these credentials; None for the one that is taken unasked."""
    if credentials not in _profiles:
        import boto3

        session = boto3.Session()._session
        known = {
            name: profile
            for name, profile in session.full_config["profiles"].items()
            if profile.get("aws_access_key_id") == credentials.access_key
        }
        if not known:
            raise alive(client, f"its credentials are those of no profile any more {_KEEP_SESSION}")
        default = session.profile or "default"
        _profiles[credentials] = None if default in known else min(known)
    return _profiles[credentials]


def _session(source: dict[str, Any], cls: type[Any] | None = None, region: str | None = None) -> Any:
    import boto3

    keys = {name: source[name] for name in _KEYS if source.get(name) is not None}
    return (cls or boto3.Session)(profile_name=source["profile"], region_name=region, **keys)


HANDLERS: Final = {
    "botocore.client:BaseClient": Handler(
        "botocore.client:BaseClient", extract_client, reconnect_client, identify_client
    ),
    "boto3.resources.base:ServiceResource": Handler(
        "boto3.resources.base:ServiceResource", extract_resource, reconnect_resource, identify_resource
    ),
    "boto3.session:Session": Handler("boto3.session:Session", extract_session, reconnect_session, identify_session),
}
