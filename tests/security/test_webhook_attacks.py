"""No URL of a webhook leads inside, no receiver holds on to us, and no secret is anywhere to read.

What decides are accepts at listeners of our own, and the bytes of the whole database and log.

Threat: Exfiltration via web/shell tools
"""

import asyncio
import logging
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import asyncpg
import httpx2
import pytest

from app.domain.errors import EgressError
from app.domain.webhook import DeliveryState
from app.egress.egress_client import EgressClient, EgressOrder
from app.webhooks import courier as courier_module
from app.wiring import Overrides
from tests.integration.webhooks.webhook_scene import POLICY, Hooks, hooks_on
from tests.support.api_matrix import finished, problem_of
from tests.support.databases import DatabaseServer, Roles, connect
from tests.support.egress_field import egress_field
from tests.support.live_server import LiveServer, live_server
from tests.support.ssrf_attack import corpus
from tests.support.webhook_receiver import HookField, hook_field_beside

PATH = "/v1/webhook-endpoints"
INSIDE = (
    "https://127.0.0.1/",
    "https://localhost/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://10.1.2.3/",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25lo]/",
    "https://[fd00:ec2::254]/",
    "https://[2606:4700::5efe:7f00:1]/",
    "https://ip-7f000001.allowed.example/",
    "https://ip-a9fea9fe.allowed.example/",
    "https://mix-0a000001.allowed.example/",
    "https://flip-7f000001.allowed.example/",
    "https://ip6-00000000000000000000000000000001.allowed.example/",
    "https://ip6-00000000000000000000ffff7f000001.allowed.example/",
    "https://nowhere.allowed.example/",
    "https://intranet/",
)
MALFORMED = (
    "http://www.allowed.example/",
    "ftp://www.allowed.example/",
    "https://user:pass@www.allowed.example/",
    "https://www.allowed.example:22/",
    "https://www.allowed.example\\@127.0.0.1/",
    "https:///nothing",
    "www.allowed.example",
)


@pytest.fixture(scope="module")
def net() -> Iterator[HookField]:
    with hook_field_beside() as made:
        yield made


@pytest.fixture(scope="module")
def server(postgres: DatabaseServer, net: HookField) -> Iterator[LiveServer]:
    overrides = Overrides(egress=net.net.parts)
    with live_server(postgres.new_database(), overrides) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx2.Client]:
    with server.client() as made:
        yield made


@pytest.fixture
async def hooks(postgres: DatabaseServer) -> AsyncIterator[Hooks]:
    roles = await asyncio.to_thread(postgres.new_database)
    async with hooks_on(roles) as made:
        yield made


def _made(client: httpx2.Client, url: str) -> httpx2.Response:
    return client.post(PATH, json={"url": url, "events": ["run.succeeded"]})


@pytest.mark.parametrize("url", [*INSIDE, *MALFORMED])
def test_an_address_inside_is_refused_when_it_is_named(
    client: httpx2.Client, net: HookField, url: str
) -> None:
    net.net.forget()
    refused = problem_of(_made(client, url), 422, "invalid-submission")
    assert refused["errors"][0]["pointer"] == "/body/url"
    good = _made(client, "https://www.allowed.example/moved").json()
    path = f"{PATH}/{good['id']}"
    changed = client.patch(path, json={"url": url}, headers={"If-Match": "*"})
    # A name that changes its mind is public at the second look: that is what deliveries are for.
    if "flip-" not in url:
        problem_of(changed, 422, "invalid-submission")
    client.delete(path, headers={"If-Match": "*"})
    net.settle()
    assert net.net.inside.accepted == []


def test_what_is_inside_and_what_does_not_exist_read_alike(client: httpx2.Client) -> None:
    inside = _made(client, "https://ip-7f000001.allowed.example/").json()
    nothing = _made(client, "https://nowhere.allowed.example/").json()
    for told in (inside, nothing):
        del told["request_id"]
    assert inside == nothing


@pytest.mark.anyio
async def test_nothing_of_the_corpus_of_addresses_is_reached() -> None:
    """Over http too, which the policy of webhooks refuses before anything else."""
    lenient = replace(POLICY, schemes=frozenset({"http", "https"}))
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        refused = 0
        for row in corpus():
            field.forget()
            order = EgressOrder(
                url=row.payload,
                policy=lenient,
                method="POST",
                body=b"{}",
                max_body_bytes=0,
                deadline_seconds=5.0,
            )
            try:
                await client.admit(row.payload, lenient)
                await client.send(order)
            except EgressError:
                refused += 1
            await field.settle()
            assert field.inside.accepted == [], row
        await client.close()
    assert refused >= 100


@pytest.mark.anyio
async def test_a_name_that_turns_inside_after_it_was_registered_is_not_followed(
    hooks: Hooks,
) -> None:
    url = "https://turn-7f000001.allowed.example/"
    await hooks.egress.admit(url, POLICY)
    endpoint = await hooks.endpoint(url)
    await hooks.store.test(endpoint.tenant_id, endpoint.endpoint_id)
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.error, one.status) == (DeliveryState.PENDING, "private", None)
    await hooks.net.settle()
    assert hooks.net.inside.accepted == []
    assert hooks.net.dial.dialled == []


@pytest.mark.anyio
async def test_a_redirect_is_an_answer_and_no_way(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/moved")
    await hooks.store.test(endpoint.tenant_id, endpoint.endpoint_id)
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.error, one.status) == (DeliveryState.PENDING, "status", 307)
    await hooks.net.settle()
    assert hooks.net.inside.accepted == []
    assert len(hooks.net.dial.dialled) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/silent", "/drip", "/heads"])
async def test_a_receiver_that_never_ends_is_left(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(courier_module, "DEADLINE_SECONDS", 2.0)
    endpoint = await hooks.endpoint(path)
    await hooks.store.test(endpoint.tenant_id, endpoint.endpoint_id)
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.attempts, one.status) == (DeliveryState.PENDING, 1, None)
    assert one.error in {"deadline", "too_much", "protocol"}
    assert hooks.net.dial.taken <= 2 << 20


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.here = threading.current_thread().name
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName != self.here:
            self.lines.append(logging.Formatter().format(record))


async def _everything(roles: Roles) -> bytes:
    """All rows of all tables; bytes as they are, and as the database prints them."""
    raw = await connect(roles.superuser)
    try:
        tables = await raw.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relnamespace = 'public'::regnamespace"
        )
        found = bytearray()
        for table in tables:
            for row in await raw.fetch(f"SELECT * FROM {table['relname']}"):
                found += _flat(row)
        return bytes(found)
    finally:
        await raw.close()


def _flat(row: asyncpg.Record) -> bytes:
    parts = [value if isinstance(value, bytes) else str(value).encode() for value in row.values()]
    return b"\n".join(parts) + repr(row).encode()


@pytest.mark.anyio
async def test_no_secret_and_no_url_is_in_the_database_or_in_the_log(
    server: LiveServer, net: HookField
) -> None:
    root, ear = logging.getLogger(), _Ear()
    before = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        with server.client() as client:
            told = _made(client, "https://www.allowed.example/seen?token=canary5512907").json()
            path = f"{PATH}/{told['id']}"
            secrets = [told["secret"], client.post(f"{path}/rotate-secret").json()["secret"]]
            finished(client, {"task": "1+1"})
            net.received(1, "/seen?token=canary5512907")
            bad = "https://ip-7f000001.allowed.example/?token=canary5512907"
            refused = client.patch(path, json={"url": bad}, headers={"If-Match": "*"})
            failing = _made(client, "https://www.allowed.example/status/500?canary5512907").json()
            client.post(f"{PATH}/{failing['id']}/test")
            net.received(1, "/status/500?canary5512907")
    finally:
        root.setLevel(before)
        root.removeHandler(ear)
    assert "canary5512907" not in refused.text
    stored = await _everything(server.roles)
    lines = "\n".join(ear.lines)
    assert "canary5512907" not in lines
    assert b"canary5512907" not in stored
    for secret in (*secrets, failing["secret"]):
        text = secret.removeprefix("whsec_")
        key = b64decode(text)
        assert text not in lines
        assert key.hex() not in lines
        for form in (text.encode(), key, key.hex().encode()):
            assert form not in stored


@pytest.mark.anyio
async def test_what_is_sealed_for_one_endpoint_opens_for_no_other(hooks: Hooks) -> None:
    """Somebody with rights on the table puts one endpoint's content into another tenant's."""
    mine = await hooks.endpoint("/mine")
    other = await hooks.tenant("other")
    theirs = await hooks.endpoint("/theirs", tenant_id=other)
    await hooks.execute(
        "UPDATE webhook_endpoint SET kek_id = $2, sealed = $3 WHERE endpoint_id = $1",
        theirs.endpoint_id,
        mine.kek_id,
        mine.sealed,
    )
    await hooks.store.test(other, theirs.endpoint_id)
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(theirs)
    assert (one.state, one.error) == (DeliveryState.PENDING, "key_store")
    assert hooks.receiver.received == []
