"""Runs the corpus of URLs against the egress client and against clients that have no such guard.

    counts = asyncio.run(ssrf_counts())      # for the bench: ssrf_urls, ssrf_leaks, control_leaked

A row leaks when a listener of the inside accepted somebody, when a name was asked of the DNS that
must not be, when more bytes were taken than may be, or when a connection was held for ever. No
answer of the guard is asked.
"""

import asyncio
import ipaddress
import json
import re
import socket
import ssl
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpcore2
import httpx2

from app.domain.errors import EgressError
from app.egress.egress_client import EgressClient, EgressOrder
from app.egress.egress_settings import shipped_blocklist
from app.egress.faults import Fault
from app.egress.public_address import Address
from app.egress.url_blocklist import UrlBlocklist
from app.egress.url_policy import HostRules, UrlPolicy, host_rules
from tests.support.egress_field import ALLOWED, Field, egress_field

CORPUS = Path(__file__).parents[1] / "security" / "corpus" / "ssrf.jsonl"
MOST_BYTES = 2 << 20
_PATIENCE_SECONDS = 20.0  # how long a connection may be held before it counts as held for ever
_SLOW_DEADLINE_SECONDS = 0.5
_CONTROL_DEADLINE_SECONDS = 2.0


class Oracle(StrEnum):
    """What would show that a row succeeded."""

    ACCEPT = "accept"
    DNS = "dns"
    BYTES = "bytes"
    HELD = "held"


class Arm(StrEnum):
    """What of the guard is in force."""

    WHOLE = "whole"
    NO_BLOCKLIST = "no blocklist"
    ANY_HOST = "any host and no blocklist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attempt of the corpus."""

    id: str
    kind: str
    payload: str
    oracle: Oracle
    layer: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a row: whether it leaked, and the layer that says it refused."""

    row: Row
    leaked: bool
    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SsrfCounts:
    """For the bench."""

    ssrf_urls: int
    ssrf_leaks: int
    control_leaked: int


_LAYERS = {
    **dict.fromkeys((Fault.URL, Fault.SCHEME, Fault.USERINFO, Fault.NUMERAL, Fault.PORT), "url"),
    Fault.HOST: "hosts",
    Fault.BLOCKED: "blocklist",
    **dict.fromkeys((Fault.PRIVATE, Fault.UNKNOWN), "address"),
    **dict.fromkeys((Fault.REDIRECTS, Fault.DOWNGRADE), "redirect"),
    **dict.fromkeys(
        (Fault.TOO_MUCH, Fault.ENCODING, Fault.DEADLINE, Fault.PROTOCOL, Fault.UNREACHABLE),
        "limits",
    ),
}


def corpus() -> list[Row]:
    """Every row, in the order of the file."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    rows = []
    for line in lines:
        read = json.loads(line)
        read["kind"] = read.pop("class")
        read["oracle"] = Oracle(read["oracle"])
        rows.append(Row(**read))
    return rows


def policy_of(arm: Arm) -> UrlPolicy:
    """The policy of an arm: everything, or with layers taken off."""
    listed = host_rules(f"{ALLOWED}, *.{ALLOWED}")
    assert listed is not None
    match arm:
        case Arm.WHOLE:
            return UrlPolicy(hosts=listed, blocklist=shipped_blocklist())
        case Arm.NO_BLOCKLIST:
            return UrlPolicy(hosts=listed, blocklist=UrlBlocklist())
        case Arm.ANY_HOST:
            return UrlPolicy(hosts=HostRules(any_host=True), blocklist=UrlBlocklist())


async def guarded(field: Field, rows: Sequence[Row], arm: Arm) -> list[Outcome]:
    """Every row against the egress client, with the guard of this arm."""
    client, policy = EgressClient(parts=field.parts), policy_of(arm)
    outcomes = []
    for row in rows:
        slow = row.oracle is Oracle.HELD
        order = EgressOrder(
            url=row.payload,
            policy=policy,
            deadline_seconds=_SLOW_DEADLINE_SECONDS if slow else 15.0,
        )
        field.forget()
        size, layer = 0, "answered"
        try:
            size = len((await client.send(order)).body)
        except EgressError as error:
            layer = _LAYERS[Fault(error.code)]
        lookups = arm is not Arm.ANY_HOST
        leaked = await _leaked(field, row, size, counts_lookups=lookups)
        outcomes.append(Outcome(row=row, leaked=leaked, layer=layer))
    await client.close()
    return outcomes


async def unguarded(field: Field, rows: Sequence[Row]) -> list[Outcome]:
    """Every row against clients as they are usually written; one that leaks is enough."""
    fetchers: tuple[Callable[[Field, str], Awaitable[int]], ...] = (
        _plainly,
        _leniently,
        _checked_before,
    )
    outcomes = []
    for row in rows:
        leaked = False
        for fetch in fetchers:
            field.forget()
            size = 0
            with suppress(Exception):
                async with asyncio.timeout(_CONTROL_DEADLINE_SECONDS):
                    size = await fetch(field, row.payload)
            held = row.oracle is Oracle.HELD and size == 0 and bool(field.public.accepted)
            leaked = held or await _leaked(field, row, size, counts_lookups=True)
            if leaked:
                break
        outcomes.append(Outcome(row=row, leaked=leaked, layer="none"))
    return outcomes


async def ssrf_counts() -> SsrfCounts:
    """Every row in every arm; a leak in any of them counts."""
    rows = corpus()
    async with egress_field() as field:
        outcomes = [one for arm in Arm for one in await guarded(field, rows, arm)]
        control = await unguarded(field, rows)
    return SsrfCounts(
        ssrf_urls=len(rows),
        ssrf_leaks=sum(outcome.leaked for outcome in outcomes),
        control_leaked=sum(outcome.leaked for outcome in control),
    )


async def _leaked(field: Field, row: Row, size: int, *, counts_lookups: bool) -> bool:
    await field.settle()
    if field.inside.accepted:
        return True
    if counts_lookups and any(not f".{name}".endswith(f".{ALLOWED}") for name in field.dns.asked):
        return True
    if max(field.dial.taken, size) > MOST_BYTES:
        return True
    return row.oracle is Oracle.HELD and not await _let_go(field)


async def _let_go(field: Field) -> bool:
    """Whether nobody holds a connection to the public side any more."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while field.public.held:  # noqa: ASYNC110 - the listener's own tasks end it
                await asyncio.sleep(0.01)
    return not field.public.held


# --- clients without the guard --------------------------------------------------------------------


class _Trusting(httpcore2.AsyncNetworkBackend):
    """Looks up what it is given, as getaddrinfo would, and dials it."""

    def __init__(self, field: Field) -> None:
        self._field = field

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        local_address: str | None = None,
        socket_options: object = None,  # noqa: ARG002 - as above
    ) -> httpcore2.AsyncNetworkStream:
        found = await _looked_up(self._field, host)
        return await self._field.dial.connect_tcp(str(found[0]), port, timeout, local_address)

    async def sleep(self, seconds: float) -> None:
        await self._field.dial.sleep(seconds)


async def _looked_up(field: Field, host: str) -> Sequence[Address]:
    """Numbers as the C library reads them, names from the DNS."""
    with suppress(OSError, UnicodeEncodeError, ValueError):
        return [ipaddress.IPv4Address(socket.inet_aton(host))]
    with suppress(ValueError):
        return [ipaddress.ip_address(host.partition("%")[0])]
    if host.rstrip(".").lower() == "localhost":  # from the hosts file of every machine
        return [ipaddress.IPv4Address("127.0.0.1")]
    return await field.resolver.addresses(host.rstrip("."))


def _client(field: Field) -> httpx2.AsyncClient:
    transport = httpx2.AsyncHTTPTransport(verify=_UNUSED_TLS, trust_env=False)
    transport._pool = httpcore2.AsyncConnectionPool(
        ssl_context=_UNUSED_TLS, network_backend=_Trusting(field)
    )
    return httpx2.AsyncClient(transport=transport, follow_redirects=True, trust_env=False)


_UNUSED_TLS = ssl.create_default_context()


async def _plainly(field: Field, url: str) -> int:
    """As the library does it."""
    async with _client(field) as client:
        return len((await client.get(url)).content)


async def _leniently(field: Field, url: str) -> int:
    """With the repairs that browsers and friendly wrappers make before they fetch."""
    repaired = "".join(letter for letter in url if letter.isprintable()).strip()
    repaired = repaired.replace("\\", "/")
    repaired = re.sub(r"^(https?):/*", r"\1://", repaired, flags=re.IGNORECASE)
    scheme, _, rest = repaired.partition("://")
    authority, slash, path = rest.partition("/")
    host = unicodedata.normalize("NFKC", unquote(authority)).replace("\u3002", ".")
    return await _plainly(field, f"{scheme}://{host}{slash}{path}")


async def _checked_before(field: Field, url: str) -> int:
    """With the usual check: look the name up, refuse private addresses, then fetch by name."""
    host = urlsplit(url).hostname or ""
    if any(address.is_private for address in (await _looked_up(field, host))[:1]):
        return 0
    return await _plainly(field, url)
