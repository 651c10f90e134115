"""boto3 clients, resources and sessions, against moto's server: real HTTP on this machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials
from holding import CANARY, Holder, resume, save
from killing import ITEMS, assert_done, files_with, run_with_kills
from moto.server import ThreadedMotoServer

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Codec
from resumable.values.registry import GLOBAL

REGION = "eu-west-1"
CREDENTIALS = f"""
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = default-{CANARY}
[other]
aws_access_key_id = AKIAOTHER
aws_secret_access_key = other-{CANARY}
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two profiles and nothing else: no keys of the machine's, no asking for those of a cloud's."""
    (tmp_path / "credentials").write_text(CREDENTIALS)
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": tmp_path / "credentials", "AWS_CONFIG_FILE": tmp_path / "config",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": REGION,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SECRET", CANARY)


@pytest.fixture
def shop(endpoint: str) -> Iterator[Any]:
    """A bucket, empty."""
    bucket = boto3.resource("s3", endpoint_url=endpoint).Bucket("shop")
    bucket.create(CreateBucketConfiguration={"LocationConstraint": REGION})
    yield bucket
    bucket.objects.delete()
    bucket.delete()
    bucket.meta.client.close()


def described(resource: Any) -> Any:
    """What is stored of it."""
    handler = GLOBAL.lookup(type(resource))
    assert handler is not None
    return GLOBAL.describe(handler, resource)


def shape(client: Any) -> tuple[Any, ...]:
    """What a client tells of itself, whatever is stored of it."""
    meta, found = client.meta, credentials(client)
    options = {name: getattr(meta.config, name) for name in meta.config.OPTION_DEFAULTS if name != "user_agent"}
    return (
        type(client).__name__, meta.region_name, meta.endpoint_url, meta.service_model.api_version, options,
        client._endpoint.http_session._verify, found and found.secret_key,
    )  # fmt: skip


def credentials(client: Any) -> Any:
    return client._request_signer._credentials


def keys(secret: str = CANARY) -> Any:
    return boto3.Session("AKIAHAND", secret, region_name=REGION)


def test_a_client_comes_back_connected(endpoint: str, shop: Any) -> None:
    """A resumed client sees what the first one wrote, and can be saved and resumed again."""
    client = boto3.client("s3", endpoint_url=endpoint)
    client.put_object(Bucket="shop", Key="a", Body=b"1")
    back = resume(save(client))
    again = resume(save(back))
    for one in (back, again):
        assert one.get_object(Bucket="shop", Key="a")["Body"].read() == b"1"
        assert shape(one) == shape(client)
        one.close()
    client.close()


CLIENTS: dict[str, Callable[[], Any]] = {
    "plain": lambda: boto3.client("s3"),
    "region": lambda: boto3.client("sqs", region_name="us-west-2"),
    "endpoint": lambda: boto3.client("s3", endpoint_url="http://127.0.0.1:1"),
    "no TLS": lambda: boto3.client("s3", use_ssl=False),
    "own CA": lambda: boto3.client("s3", verify="/ca.pem"),
    "unverified": lambda: boto3.client("s3", verify=False),
    "unsigned": lambda: boto3.client("s3", config=Config(signature_version=botocore.UNSIGNED)),
    "old signature": lambda: boto3.client("s3", config=Config(signature_version="s3")),
    "api version": lambda: boto3.client("cloudfront", api_version="2019-03-26"),
    "config": lambda: boto3.client(
        "s3",
        config=Config(
            retries={"max_attempts": 7, "mode": "adaptive"}, connect_timeout=3, read_timeout=4, max_pool_connections=77,
            s3={"addressing_style": "path"}, user_agent_extra="mine", parameter_validation=False,
        ),
    ),
    "dual stack": lambda: boto3.client("s3", config=Config(use_dualstack_endpoint=True)),
    "global service": lambda: boto3.client("iam"),
    "by hand": lambda: keys().client("dynamodb"),
    "profile": lambda: boto3.Session(profile_name="other").client("s3"),
}  # fmt: skip


@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
def test_every_kind_of_client_comes_back_as_it_was(make: Callable[[], Any], in_environment: None) -> None:
    """Service, region, endpoint, version, options and credentials are the same after a resume, with no server asked."""
    client = make()
    back = resume(save(client))
    again = resume(save(back))
    for one in (back, again):
        assert shape(one) == shape(client)
        one.close()
    client.close()


@pytest.mark.parametrize("use_ssl", [True, False])
def test_what_boto3_chooses_stays_its_own_choice(use_ssl: bool) -> None:
    """Nothing is set on a resumed client that was not set on the first one, so that S3 still names hosts by buckets."""
    client = boto3.client("s3", use_ssl=use_ssl)
    back = resume(save(client))
    asked = {"Bucket": "shop", "Key": "a"}
    urls = [it.generate_presigned_url("get_object", Params=asked).partition("?")[0] for it in (client, back)]
    assert urls[0] == urls[1]
    assert urls[0].startswith("https://shop.s3." if use_ssl else "http://shop.s3.")
    client.close()
    back.close()


RESOURCES: dict[str, Callable[[Any], Any]] = {
    "service": lambda s3: s3,
    "bucket": lambda s3: s3.Bucket("shop"),
    "object": lambda s3: s3.Object("shop", "a"),
    "summary": lambda s3: s3.ObjectSummary("shop", "a"),
    "part": lambda s3: s3.MultipartUploadPart("shop", "a", "upload", "3"),
    "acl": lambda s3: s3.Bucket("shop").Acl(),
    "from another": lambda s3: s3.Bucket("shop").Object("a").Version("7"),
}


@pytest.mark.parametrize("make", RESOURCES.values(), ids=RESOURCES)
def test_every_kind_of_resource_comes_back_as_it_was(make: Callable[[Any], Any], endpoint: str) -> None:
    """A resource comes back by its kind and identifiers, with a client like the first one."""
    resource = make(boto3.resource("s3", endpoint_url=endpoint))
    back = resume(save(resource))
    again = resume(save(back))
    for one in (back, again):
        assert repr(one) == repr(resource)
        assert one == resource
        assert shape(one.meta.client) == shape(resource.meta.client)
        one.meta.client.close()
    resource.meta.client.close()


def test_a_resource_comes_back_connected(shop: Any) -> None:
    """A resumed bucket sees what the first one wrote."""
    shop.put_object(Key="a", Body=b"1")
    back = resume(save(shop))
    assert [it.key for it in back.objects.all()] == ["a"]
    back.meta.client.close()


def test_what_a_resource_has_loaded(shop: Any) -> None:
    """What a resource can load it loads again, up to date; what it was only listed with is kept."""
    shop.put_object(Key="a", Body=b"1")
    loaded, (listed,) = shop.Object("a"), shop.object_versions.all()
    assert loaded.content_length == 1
    encoded = Codec().encode([loaded, listed])
    shop.put_object(Key="a", Body=b"123")
    again, kept = Codec().decode(*encoded)
    assert again.content_length == 3
    assert kept.last_modified == listed.last_modified
    again.meta.client.close()


def test_a_table_comes_back(endpoint: str) -> None:
    """A DynamoDB table, with the conversions that boto3 adds to its client, takes and gives the same items."""
    dynamodb = boto3.resource("dynamodb", endpoint_url=endpoint)
    table = dynamodb.create_table(
        TableName="t", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "n", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "n", "AttributeType": "N"}],
    )  # fmt: skip
    table.put_item(Item={"n": 1, "tags": {"a", "b"}})
    back = resume(save(table))
    assert back.get_item(Key={"n": 1})["Item"] == {"n": 1, "tags": {"a", "b"}}
    with pytest.raises(LiveResourceError, match="last key or marker"):
        save(table.batch_writer())
    table.delete()
    back.meta.client.close()
    table.meta.client.close()


def test_resources_that_shared_a_client_share_one_again(shop: Any) -> None:
    """One client behind several resources comes back as one."""
    client, one = shop.meta.client, shop.Object("a")
    encoded = Codec().encode([client, Holder(shop), {"one": one}])
    again, bucket, rest = Codec().decode(*encoded)
    assert bucket.held.meta.client is rest["one"].meta.client is again
    again.close()


def test_a_session_comes_back(in_environment: None) -> None:
    """A session comes back with its region, profile and keys."""
    for session in (boto3.Session(), boto3.Session(profile_name="other", region_name="us-west-2"), keys()):
        session.get_credentials()
        back = resume(save(session))
        assert (back.region_name, back.profile_name) == (session.region_name, session.profile_name)
        assert back.get_credentials().secret_key == session.get_credentials().secret_key
        assert described(back) == described(session)


# ---- secrets


def test_keys_given_by_hand_are_never_stored(in_environment: None) -> None:
    """Keys that the environment holds too are stored by name, and read from there on resume."""
    client = boto3.client("s3", aws_access_key_id="AKIAHAND", aws_secret_access_key=CANARY)
    for made in (client, keys().resource("s3").Bucket("shop"), keys()):
        for extra in (None, lambda: 1):
            encoded = Codec().encode([made, extra])
            assert CANARY.encode() not in encoded.data
    client.close()


def test_keys_that_the_environment_does_not_hold_are_refused() -> None:
    """Keys that could only be stored in clear are an error that names the argument."""
    client = keys().client("s3")
    for made in (client, keys().resource("sqs"), keys()):
        with pytest.raises(SecretError, match="aws_secret_access_key") as caught:
            save(made)
        assert CANARY not in str(caught.value)
    client.close()


def test_bare_credentials_are_refused() -> None:
    """Credentials taken out of a session, which pickle writes in clear, are refused."""
    found = keys().get_credentials()
    for held in (found, found.get_frozen_credentials()):
        with pytest.raises(LiveResourceError, match="not saved") as caught:
            save(held)
        assert CANARY not in str(caught.value)


def test_a_token_is_a_secret_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of keys for a session is refused or kept by name, as the keys are."""
    monkeypatch.setenv("APP_SECRET", "a-secret-key-" + CANARY)
    client = boto3.Session("AKIAHAND", "a-secret-key-" + CANARY, "a-token-" + CANARY).client("s3")
    with pytest.raises(SecretError, match="aws_session_token"):
        save(client)
    monkeypatch.setenv("APP_TOKEN", "a-token-" + CANARY)
    encoded = save(client)
    assert CANARY.encode() not in encoded.data
    back = resume(encoded)
    assert credentials(back).token == "a-token-" + CANARY
    back.close()
    client.close()


def test_keys_of_the_environment_and_of_profiles_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of the default chain and of profiles are found again there, and nothing of them is stored."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"env-{CANARY}")
    for session, expected in ((boto3.Session(), "env"), (boto3.Session(profile_name="other"), "other")):
        client = session.client("s3")
        encoded = save(client)
        assert CANARY.encode() not in encoded.data
        back = resume(encoded)
        assert credentials(back).secret_key == f"{expected}-{CANARY}"
        back.close()
        client.close()


def test_credentials_from_nobody_knows_where_are_refused() -> None:
    """A role or sign-on that only some profile knows is refused: another account's credentials must not take its place."""
    session = boto3.Session()
    session._session._credentials = DeferredRefreshableCredentials(dict, "assume-role")
    client = session.client("s3")
    with pytest.raises(LiveResourceError, match=r"'assume-role' \(set AWS_PROFILE"):
        save(client)
    boto3.DEFAULT_SESSION = session  # it is that of `boto3.client`, which a resume asks too
    save(client)
    client.close()


def test_the_identity_has_no_secret() -> None:
    """For a job's arguments a client or resource is where it leads, whatever the keys and options are."""

    def identity(made: Any) -> Any:
        handler = GLOBAL.lookup(type(made))
        assert handler is not None
        return handler.identity(made)

    assert identity(keys().client("s3")) == identity(boto3.client("s3", config=Config(read_timeout=3)))
    assert identity(keys().client("s3")) != identity(boto3.client("s3", region_name="us-west-2"))
    first = keys().resource("s3").Bucket("a")
    assert identity(first) == identity(boto3.resource("s3").Bucket("a"))
    assert identity(first) != identity(boto3.resource("s3").Bucket("b"))
    assert identity(keys()) == identity(keys("other")) != identity(boto3.Session(profile_name="other"))
    assert CANARY not in repr([identity(keys().client("s3")), identity(first), identity(keys())])


# ---- what is refused


def test_what_stands_in_the_middle_is_refused_with_advice(shop: Any) -> None:
    """Bodies not read yet, paginators, waiters and collections are refused with what to keep instead."""
    shop.put_object(Key="a", Body=b"1")
    client = shop.meta.client
    body = client.get_object(Bucket="shop", Key="a")["Body"]
    paginator = client.get_paginator("list_objects_v2")
    for held, advice in (
        (body, "keep the bytes"),
        (paginator, "last key or marker"),
        (paginator.paginate(Bucket="shop"), "last key or marker"),
        (client.get_waiter("bucket_exists"), "keep the client"),
        (client.meta, "keep the client"),
        (client.exceptions, "keep the client"),
        (shop.objects, "last key or marker"),
        (shop.objects.all(), "last key or marker"),
    ):
        with pytest.raises(LiveResourceError, match=advice):
            save(held)
    assert body.read() == b"1"


def test_an_unknown_version_of_botocore_is_refused() -> None:
    """A client that does not tell its credentials in the way known here is refused, not revived with others."""
    client = boto3.client("s3")
    del client._request_signer._credentials
    with pytest.raises(LiveResourceError, match="this version of botocore"):
        save(client)
    client.close()


# ---- whole runs


def test_a_profile_that_is_gone_is_named(tmp_path: Path) -> None:
    """A resume where the profile is gone is a ReconnectError that names it; no other credentials take its place."""
    client = boto3.Session(profile_name="other").client("s3")
    encoded = save(client)
    client.close()
    (tmp_path / "credentials").write_text(CREDENTIALS.replace("[other]", "[third]"))
    with pytest.raises(ReconnectError, match="other"):
        resume(encoded)


def test_no_key_is_in_the_state_directory(shop: Any, endpoint: str, tmp_path: Path, in_environment: None) -> None:
    """After a run that took a client as argument and held a bucket in its state, no file holds a key."""
    home = tmp_path / "home"
    given = keys().client("s3", endpoint_url=endpoint)
    held = keys().resource("s3", endpoint_url=endpoint).Bucket("shop")

    def job(client: Any, state: Any = None) -> Iterator[Any]:
        for done in range(5):
            client.put_object(Bucket="shop", Key=str(done))
            yield checkpoint({"done": done, "held": held})

    with Driver(home) as driver:
        driver.run(job, given, name="job")
    assert len(list(shop.objects.all())) == 5
    assert not files_with(CANARY, home)
    assert files_with("127.0.0.1", home)  # what was looked through is what was stored
    given.close()
    held.meta.client.close()


@pytest.mark.crash
def test_a_bucket_survives_kills(shop: Any, endpoint: str, tmp_path: Path, seed: int, in_environment: None) -> None:
    """A job that holds a bucket and is killed again and again does every item, one more at most for each kill."""
    home = tmp_path / "home"
    run_with_kills("into_s3", home, endpoint, 4, random.Random(seed))
    done = [int(it.key.partition("/")[0]) for it in shop.objects.all()]
    assert len(done) >= ITEMS
    assert_done(done, 4)
    assert not files_with(CANARY, home)
