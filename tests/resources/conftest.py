"""Servers that tests of live resources ask for: one of a kind for all tests of a process, started when first needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import servers


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.Server]:
    """A PostgreSQL whose user may do everything."""
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Server]:
    """A Redis, with the login of its default user."""
    with servers.redis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: servers.Server) -> str:
    """As the default user, whose name goes unsaid."""
    return redis_server.url


@pytest.fixture(scope="session")
def redis_acl_url(redis_server: servers.Server) -> str:
    """As a user of the access control list."""
    return replace(redis_server, user="worker", password=f"{redis_server.password}-worker").url
