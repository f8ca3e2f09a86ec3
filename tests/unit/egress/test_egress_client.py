"""The client itself: what it does not use, what it ends, and what it looks up."""

import asyncio
import logging
import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import httpcore2
import pytest

from app.domain.errors import EgressError
from app.egress.egress_client import EgressClient, EgressOrder, EgressParts
from app.egress.faults import SENTENCES, Fault, refused
from app.egress.name_resolver import SystemResolver
from app.egress.public_backend import MeteredStream, PublicBackend
from app.egress.url_blocklist import UrlBlocklist
from app.egress.url_policy import MAX_BODY_BYTES, HostRules, UrlPolicy
from tests.support.egress_field import egress_field
from tests.support.ssrf_attack import Arm, policy_of

WWW = "http://www.allowed.example/"


def order(url: str = WWW, **more: float) -> EgressOrder:
    return EgressOrder(
        url=url, policy=policy_of(Arm.WHOLE), deadline_seconds=more.get("deadline", 15.0)
    )


@pytest.mark.anyio
async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with egress_field() as field:
        proxy = f"http://127.0.0.1:{field.inside.port}"
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy)
            monkeypatch.setenv(name.upper(), proxy)
        client = EgressClient(parts=field.parts)
        answer = await client.send(order())
        await client.close()
        await field.settle()
        assert answer.body == b"hello"
        assert field.inside.accepted == []


@pytest.mark.anyio
async def test_each_request_looks_up_once_and_keeps_no_connection() -> None:
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        for _ in range(3):
            await client.send(order())
        await client.close()
        await field.settle()
        assert field.dns.asked == ["www.allowed.example"] * 6  # A and AAAA for each
        assert len(field.public.accepted) == 3


@pytest.mark.anyio
async def test_a_network_that_the_operator_denied_is_not_dialled() -> None:
    async with egress_field() as field:
        client = EgressClient(denied=[ip_network("93.184.216.0/24")], parts=field.parts)
        with pytest.raises(EgressError) as told:
            await client.send(order())
        await client.close()
        assert (told.value.code, field.dial.dialled) == (Fault.PRIVATE, [])


@pytest.mark.anyio
async def test_an_answer_that_is_not_read_whole_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*place, ("93.184.216.34", 0)), (*place, ("what is this", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(EgressError) as told:
        await SystemResolver().addresses("www.allowed.example")
    assert told.value.code == Fault.UNKNOWN


@pytest.mark.anyio
async def test_the_library_logs_no_head(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        await client.send(order())
        await client.close()
    assert [line for line in caplog.records if line.name.startswith("httpcore2")] == []


@pytest.mark.anyio
async def test_a_path_of_a_socket_is_never_connected() -> None:
    async with egress_field() as field:
        backend = PublicBackend(
            resolver=field.resolver, denied=(), dial=field.dial, max_wire_bytes=1
        )
        with pytest.raises(EgressError):
            await backend.connect_unix_socket("/var/run/docker.sock")


@pytest.mark.anyio
async def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    class Half(httpcore2.AsyncNetworkBackend):
        """Refuses the first, and asks the field for the second."""

        def __init__(self, below: httpcore2.AsyncNetworkBackend) -> None:
            self.below, self.tried = below, list[str]()

        async def connect_tcp(
            self, host: str, port: int, *_: object, **__: object
        ) -> httpcore2.AsyncNetworkStream:
            self.tried.append(host)
            if len(self.tried) == 1:
                raise httpcore2.ConnectError
            return await self.below.connect_tcp(host, port)

    async with egress_field() as field:
        half = Half(field.dial)
        client = EgressClient(
            parts=EgressParts(resolver=field.resolver, dial=half, tls=field.trusted)
        )
        await client.send(order("http://mix-5db8d823.allowed.example/"))  # two public addresses
        await client.close()
        assert half.tried == ["93.184.216.34", "93.184.216.35"]


@pytest.mark.anyio
async def test_what_is_under_way_when_the_service_stops_ends_with_an_error() -> None:
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        under_way = asyncio.create_task(client.send(order(WWW + "drip")))
        async with field.public.seen:
            await field.public.seen.wait_for(lambda: field.public.accepted)
        await client.close()
        with pytest.raises(EgressError):
            await under_way
        with pytest.raises(EgressError) as told:
            await client.send(order())
        assert told.value.code == Fault.CLOSED


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_lets_go() -> None:
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        under_way = asyncio.create_task(client.send(order(WWW + "silent")))
        async with field.public.seen:
            await field.public.seen.wait_for(lambda: field.public.accepted)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        async with asyncio.timeout(20):
            while field.public.held:  # noqa: ASYNC110 - the listener's own task ends it
                await asyncio.sleep(0.01)
        await client.close()


@pytest.mark.anyio
async def test_a_stream_is_read_in_small_pieces_and_ends_at_its_limit() -> None:
    class Endless(httpcore2.AsyncNetworkStream):
        """Gives as much as it is asked for."""

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - the library's signature
            return b"x" * max_bytes

    metered = MeteredStream(Endless(), 20_000)
    assert len(await metered.read(1 << 20)) == 8192
    assert len(await metered.read(100)) == 100
    await metered.read(1 << 20)
    with pytest.raises(EgressError) as told:
        await metered.read(1 << 20)
    assert told.value.code == Fault.TOO_MUCH


def _place(address: str) -> tuple[object, ...]:
    return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 0, 0, 0))


@pytest.mark.anyio
async def test_the_system_is_asked_for_the_whole_name_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[object, ...]] = []

    def answers(*arguments: object, **_: object) -> list[tuple[object, ...]]:
        asked.append(arguments)
        return [_place("fe80::1%eth0"), _place("93.184.216.34"), _place("93.184.216.34")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    resolver = SystemResolver()
    found = await resolver.addresses("www.allowed.example")
    resolver.close()
    assert asked == [("www.allowed.example.", None)]
    assert found == [ip_address("fe80::1"), ip_address("93.184.216.34")]


def _fails(*_: object, **__: object) -> list[tuple[object, ...]]:
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answers",
    [lambda *_, **__: [], lambda *_, **__: [_place("no address")], _fails],
    ids=["none", "one that is none", "an error"],
)
async def test_a_name_without_addresses_is_unknown(
    answers: Callable[..., list[tuple[object, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers)
    resolver = SystemResolver()
    with pytest.raises(EgressError) as told:
        await resolver.addresses("www.allowed.example")
    resolver.close()
    assert told.value.code == Fault.UNKNOWN
    with pytest.raises(EgressError):
        await resolver.addresses("www.allowed.example")  # a closed one knows nothing either


@pytest.mark.anyio
async def test_webhooks_may_name_any_public_host_and_post_to_it() -> None:
    webhooks = UrlPolicy(
        hosts=HostRules(any_host=True),
        blocklist=UrlBlocklist(),
        methods=frozenset({"POST"}),
        schemes=frozenset({"http"}),
    )
    async with egress_field() as field:
        client = EgressClient(parts=field.parts)
        answer = await client.send(
            EgressOrder(
                url="http://www.anybody.example/in",
                policy=webhooks,
                method="POST",
                body=b"{}",
                headers=(("X-Signature", "abc"),),
            )
        )
        with pytest.raises(EgressError) as told:
            await client.send(
                EgressOrder(
                    url="http://ip-7f000001.anybody.example/",
                    policy=webhooks,
                    method="POST",
                    body=b"{}",
                )
            )
        await client.close()
        assert answer.status == 200
        assert b"X-Signature: abc\r\n" in field.public.heads[0]
        assert told.value.code == Fault.PRIVATE


def test_every_fault_has_words_and_two_of_them_the_same() -> None:
    assert set(SENTENCES) == set(Fault)
    assert SENTENCES[Fault.PRIVATE] == SENTENCES[Fault.UNKNOWN]
    assert str(refused(Fault.PRIVATE)) == SENTENCES[Fault.PRIVATE]
    assert MAX_BODY_BYTES <= 1 << 20
