"""The one allowance for this machine: for development, by port, and for webhooks alone."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError, EgressError
from app.egress.egress_client import EgressClient, EgressOrder
from app.egress.faults import Fault
from app.settings import Settings
from tests.support.egress_field import CANARY, egress_field

NAME = "MESHFLOW_WEBHOOK_LOOPBACK_PORTS"


def read(*, dev: bool, **more: str) -> Settings:
    return Settings.from_environ(
        {NAME: "9000", **more}, dev=dev, uid=1000, home=Path("/home/somebody")
    )


def test_it_is_for_development_alone() -> None:
    with pytest.raises(ConfigurationError, match="--dev"):
        read(dev=False)
    assert read(dev=True).egress.webhook_policy().local_ports == {9000}
    none = Settings.from_environ({}, dev=True, uid=1000, home=Path("/home/somebody"))
    assert none.egress.webhook_policy().local_ports == frozenset()


def test_the_web_tool_has_no_part_in_it() -> None:
    policy = read(dev=True, MESHFLOW_FETCH_HOSTS="example.com").egress.fetch_policy()
    assert policy is not None
    assert policy.local_ports == frozenset()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_only_addresses_at_these_ports_are_of_this_machine(host: str) -> None:
    policy = read(dev=True).egress.webhook_policy()
    assert not isinstance(policy.judge(f"http://{host}:9000/x", "POST", b"{}"), Fault)
    assert policy.judge(f"http://{host}:9001/x", "POST", b"{}") is Fault.SCHEME
    assert policy.judge(f"https://{host}:9001/x", "POST", b"{}") is Fault.PORT
    assert policy.judge("http://10.0.0.1:9000/x", "POST", b"{}") is Fault.SCHEME
    assert policy.judge("http://www.allowed.example:9000/x", "POST", b"{}") is Fault.SCHEME
    assert policy.judge("http://localhost:9000/x", "POST", b"{}") is Fault.URL


@pytest.mark.anyio
async def test_the_address_is_dialled_with_the_allowance_and_not_without() -> None:
    policy = read(dev=True).egress.webhook_policy()
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        order = EgressOrder(url="http://127.0.0.1:9000/", policy=policy, method="POST", body=b"{}")
        await client.admit(order.url, policy)
        answer = await client.send(order)
        assert answer.body == CANARY
        assert field.dns.asked == []
        without = replace(policy, local_ports=frozenset({9001}), schemes=frozenset({"http"}))
        for url in ("http://127.0.0.1/", "http://ip-7f000001.allowed.example/"):
            with pytest.raises(EgressError) as told:
                await client.send(replace(order, url=url, policy=without))
            assert told.value.code == Fault.PRIVATE
        await client.close()


@pytest.mark.anyio
async def test_a_receiver_that_is_not_there_is_told_as_such() -> None:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    policy = replace(read(dev=True).egress.webhook_policy(), local_ports=frozenset({port}))
    client = EgressClient()
    url = f"http://127.0.0.1:{port}/"
    with pytest.raises(EgressError) as told:
        await client.send(EgressOrder(url=url, policy=policy, method="POST", body=b"{}"))
    await client.close()
    assert told.value.code == Fault.UNREACHABLE
