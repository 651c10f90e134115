"""Jobs with a client in their state, for tests that kill them: `client_jobs.py kind home items address`.

Each does one thing an item that the server sees or keeps, and prints a line for the test to count.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

from resumable import Driver, checkpoint


def into_redis(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import redis

    done, client = state or (0, redis.Redis.from_url(address))
    with client:
        for item in range(done, items):
            client.rpush("items", item)
            print(item, flush=True)
            yield checkpoint((item + 1, client))


async def into_redis_async(items: int, address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    import redis.asyncio

    done, client = state or (0, redis.asyncio.Redis.from_url(address))
    async with client:
        for item in range(done, items):
            await client.rpush("items", item)
            print(item, flush=True)
            yield checkpoint((item + 1, client))


def into_mongo(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import pymongo

    done, collection = state or (0, pymongo.MongoClient(address)["shop"]["items"])
    with collection.database.client:
        for item in range(done, items):
            collection.insert_one({"item": item})
            print(item, flush=True)
            yield checkpoint((item + 1, collection))


def into_s3(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import boto3

    def bucket() -> Any:
        keys = "an-access-key", os.environ["APP_SECRET"]
        return boto3.Session(*keys, region_name="eu-west-1").resource("s3", endpoint_url=address).Bucket("shop")

    done, shop = state or (0, bucket())
    for item in range(done, items):
        shop.put_object(Key=f"{item}/{uuid.uuid4()}", Body=b"")
        print(item, flush=True)
        yield checkpoint((item + 1, shop))
    shop.meta.client.close()


INSERT = "INSERT INTO items VALUES ({})"


def into_sqlite(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import sqlite3

    return _into_rows(items, state or (0, sqlite3.connect(address)))


def into_psycopg(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import psycopg

    return _into_rows(items, state or (0, psycopg.connect(address)))


def into_psycopg2(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import psycopg2

    return _into_rows(items, state or (0, psycopg2.connect(address)))


def _into_rows(items: int, state: tuple[int, Any]) -> Iterator[Any]:
    done, connection = state
    with closing(connection):
        for item in range(done, items):
            with closing(connection.cursor()) as cursor:
                cursor.execute(INSERT.format(item))
            connection.commit()
            print(item, flush=True)
            yield checkpoint((item + 1, connection))


async def into_psycopg_async(items: int, address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    import psycopg

    done, connection = state or (0, await psycopg.AsyncConnection.connect(address))
    async with connection:
        for item in range(done, items):
            await connection.execute(INSERT.format(item))
            await connection.commit()
            print(item, flush=True)
            yield checkpoint((item + 1, connection))


async def into_asyncpg_async(items: int, address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    import asyncpg

    done, connection = state or (0, await asyncpg.connect(address))
    for item in range(done, items):
        await connection.execute(INSERT.format(item))
        print(item, flush=True)
        yield checkpoint((item + 1, connection))
    await connection.close()


def into_engine(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    from sqlalchemy import create_engine, text

    done, engine = state or (0, create_engine(address))
    for item in range(done, items):
        with engine.begin() as connection:
            connection.execute(text(INSERT.format(item)))
        print(item, flush=True)
        yield checkpoint((item + 1, engine))
    engine.dispose()


def into_session(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    from sqlalchemy import create_engine, orm, text

    done, session = state or (0, orm.Session(create_engine(address)))
    with session:
        for item in range(done, items):
            session.execute(text(INSERT.format(item)))
            session.commit()
            print(item, flush=True)
            yield checkpoint((item + 1, session))
    session.get_bind().dispose()


async def into_engine_async(items: int, address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    done, engine = state or (0, create_async_engine(address))
    for item in range(done, items):
        async with engine.begin() as connection:
            await connection.execute(text(INSERT.format(item)))
        print(item, flush=True)
        yield checkpoint((item + 1, engine))
    await engine.dispose()


def into_mail(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import smtplib

    if state is None:
        smtp = smtplib.SMTP("127.0.0.1", int(address))
        smtp.login("me", os.environ["MAIL_PASSWORD"])
        state = 0, smtp
    done, smtp = state
    with smtp:
        for item in range(done, items):
            smtp.sendmail("a@here.example", ["b@there.example"], f"Subject: x\r\n\r\nnumber {item}\r\n")
            print(item, flush=True)
            yield checkpoint((item + 1, smtp))


def with_requests(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import requests

    if state is None:
        state = 0, requests.Session()
        state[1].headers["Authorization"] = f"Bearer {os.environ['APP_SECRET']}"
    done, session = state
    with session:
        for item in range(done, items):
            session.get(f"{address}{item}").raise_for_status()
            print(item, flush=True)
            yield checkpoint((item + 1, session))


def with_httpx(items: int, address: str, state: tuple[int, Any] | None = None) -> Iterator[Any]:
    import httpx

    token = {"Authorization": f"Bearer {os.environ['APP_SECRET']}"}
    done, client = state or (0, httpx.Client(base_url=address, headers=token))
    with client:
        for item in range(done, items):
            client.get(str(item)).raise_for_status()
            print(item, flush=True)
            yield checkpoint((item + 1, client))


async def with_httpx_async(items: int, address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    import httpx

    token = {"Authorization": f"Bearer {os.environ['APP_SECRET']}"}
    done, client = state or (0, httpx.AsyncClient(base_url=address, headers=token))
    async with client:
        for item in range(done, items):
            (await client.get(str(item))).raise_for_status()
            print(item, flush=True)
            yield checkpoint((item + 1, client))


async def with_aiohttp_async(items: int, address: str, state: tuple[int, Any] | None = None) -> AsyncIterator[Any]:
    import aiohttp

    token = {"Authorization": f"Bearer {os.environ['APP_SECRET']}"}
    done, session = state or (0, aiohttp.ClientSession(base_url=address, headers=token, raise_for_status=True))
    async with session:
        for item in range(done, items):
            async with session.get(str(item)) as answer:
                await answer.read()
            print(item, flush=True)
            yield checkpoint((item + 1, session))


def main() -> None:
    kind, home, items, address = sys.argv[1:]
    job = globals()[kind]
    with Driver(home) as driver:
        if kind.endswith("_async"):
            asyncio.run(driver.arun(job, int(items), address, name="job"))
        else:
            driver.run(job, int(items), address, name="job")


if __name__ == "__main__":
    main()
