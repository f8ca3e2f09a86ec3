"""No URL, no name, no redirect and no body brings the egress client to a place inside.

The corpus is run whole, with the blocklist taken off, and with any host allowed, and once against
clients without a guard, so that its rows are known to be attacks. What decides are accepts and DNS
queries at listeners of our own.

Threat: Exfiltration via web/shell tools
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from urllib.parse import urlsplit

import httpcore2
import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.domain.errors import EgressError
from app.egress.egress_client import EgressClient, EgressOrder, EgressParts
from app.egress.public_address import Address
from app.egress.url_policy import SafeUrl
from tests.support.egress_field import egress_field
from tests.support.ssrf_attack import Arm, corpus, guarded, policy_of, unguarded


def test_the_corpus_is_as_large_and_as_wide_as_it_has_to_be() -> None:
    rows = corpus()
    assert len(rows) >= 150
    assert len({row.id for row in rows}) == len({row.payload for row in rows}) == len(rows)
    kinds = Counter(row.kind for row in rows)
    assert kinds["rebinding"] + kinds["rebinding over a redirect"] >= 10
    assert kinds["redirect"] + kinds["redirect to tell by DNS"] >= 30
    assert all(row.source for row in rows)


@pytest.mark.anyio
async def test_nothing_of_the_corpus_gets_through_and_each_layer_stops_its_own() -> None:
    async with egress_field() as field:
        outcomes = await guarded(field, corpus(), Arm.WHOLE)
    assert [outcome.row for outcome in outcomes if outcome.leaked] == []
    other = {o.row.id: (o.row.layer, o.layer) for o in outcomes if o.row.layer != o.layer}
    assert other == {}


@pytest.mark.anyio
@pytest.mark.parametrize("arm", [Arm.NO_BLOCKLIST, Arm.ANY_HOST])
async def test_nothing_gets_through_when_the_first_layers_are_switched_off(arm: Arm) -> None:
    async with egress_field() as field:
        outcomes = await guarded(field, corpus(), arm)
    assert [outcome.row for outcome in outcomes if outcome.leaked] == []
    assert not {"blocklist", *(["hosts"] if arm is Arm.ANY_HOST else [])} & {
        outcome.layer for outcome in outcomes
    }


@pytest.mark.anyio
async def test_clients_without_the_guard_leak_on_most_of_the_corpus() -> None:
    async with egress_field() as field:
        outcomes = await unguarded(field, corpus())
    leaks = Counter(outcome.row.kind for outcome in outcomes if outcome.leaked)
    assert leaks.total() >= 100
    for kind in ("rebinding", "rebinding over a redirect", "redirect", "redirect to tell by DNS"):
        assert leaks[kind] > 0, leaks


# --- no two readings of one URL -------------------------------------------------------------------

_PIECES = (
    *("http://", "https://", "HTTP://", "http:/", "http:", "//", "/", "\\", "?", "#", "@", ":"),
    *("80", "443", "8080", "0", "127.0.0.1", "10.0.0.1", "93.184.216.34", "[::1]", "[", "]"),
    *("allowed.example", "www.", ".", "..", "localhost", "2130706433", "0x7f", "0177", "1"),
    *("%", "%2e", "%40", "%00", "%2f", "\t", "\n", "\0", " ", "\u3002", "\uff11", "\u00ad", "-"),
    *("xn--", "\u00e9", "[::ffff:7f00:1]", "[2606:4700:4700::1111]", "user", "&", ";", ",", "|"),
)
_URLS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(("http://", "https://", "")),
        st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=8).map("".join),
    ),
)


class _Table:
    """A resolver that knows a public address for every name, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def addresses(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        return (self.address(host),)

    @staticmethod
    def address(host: str) -> Address:
        return IPv4Address(0x5DB8_0000 + sum(host.encode()) % 0xFFFF)

    def close(self) -> None:
        """Nothing is held."""


class _Deaf(httpcore2.AsyncNetworkBackend):
    """Notes what is dialled; nobody answers."""

    def __init__(self) -> None:
        self.dialled: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - the library's signature
        local_address: str | None = None,  # noqa: ARG002 - as above
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore2.AsyncNetworkStream:
        self.dialled.append((host, port))
        raise httpcore2.ConnectError


async def _attempt(text: str, table: _Table, deaf: _Deaf) -> None:
    client = EgressClient(parts=EgressParts(resolver=table, dial=deaf, tls=_TLS))
    with pytest.raises(EgressError):
        await client.send(EgressOrder(url=text, policy=policy_of(Arm.ANY_HOST)))
    await client.close()


_TLS = httpcore2.default_ssl_context()


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_URLS)
@example("http://allowed.example:80\\@127.0.0.1/")
@example("http://93.184.216.34:08/")
@example("http://www.allowed.example./?@127.0.0.1#x")
def test_what_is_judged_is_what_is_dialled_and_other_readers_agree(text: str) -> None:
    table, deaf = _Table(), _Deaf()
    asyncio.run(_attempt(text, table, deaf))
    judged = policy_of(Arm.ANY_HOST).judge(text)
    if not isinstance(judged, SafeUrl):
        assert (deaf.dialled, table.asked) == ([], [])
        return
    assert table.asked == ([] if judged.address is not None else [judged.host])
    for address, port in deaf.dialled:
        assert address == str(judged.address or table.address(judged.host))
        assert port == judged.port
    told, other = urlsplit(text), httpx2.URL(text)
    assert (told.hostname or "").removesuffix(".") == other.host.removesuffix(".") == judged.host
    port = 443 if judged.scheme == "https" else 80
    assert (told.port or port) == (other.port or port) == judged.port
    assert (told.scheme, other.scheme) == (judged.scheme, judged.scheme)
