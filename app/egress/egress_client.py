"""The one HTTP client for addresses that are not the operator's: of the web tool and of webhooks.

Every hop is judged from its text, looked up once and dialled as judged; redirects are followed by
hand. Bytes, hops and time are bounded, nothing of the environment is used (no proxy, no .netrc, no
cookies), and a credential stays with the origin that it was bound to.

Threat: Exfiltration via web/shell tools
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import httpcore2

from app.domain.errors import EgressError
from app.egress.faults import Fault, refused
from app.egress.name_resolver import NameResolver, SystemResolver
from app.egress.public_address import Network
from app.egress.public_backend import LocalBackend, PublicBackend
from app.egress.tool_credentials import ToolCredential
from app.egress.url_policy import READING, SafeUrl, UrlPolicy, followed

MAX_BODY_BYTES = 1 << 20
MAX_REDIRECTS = 5
DEADLINE_SECONDS = 15.0
_LOOKUP_SECONDS = 5.0
_WIRE_OVERHEAD_BYTES = 256 * 1024  # heads, chunk sizes and interim answers of one connection
_MAX_CONNECTIONS = 128  # of which webhooks take half at most
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FINAL_STATUSES = range(200, 600)  # RFC 9110, 15; an interim answer is none
_AGENT = b"MeshFlow"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressOrder:
    """One request. `headers` are of the code that asks, never of a model.

    Redirects are followed for GET and HEAD only: a body goes to one place, and the answer says
    where the host would rather have it. With `max_body_bytes` 0 no body is read, of whatever kind.
    """

    url: str
    policy: UrlPolicy
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    credentials: tuple[ToolCredential, ...] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    deadline_seconds: float = DEADLINE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressAnswer:
    """What came back. `url` is where it came from in the end. The body is anybody's text."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressParts:
    """What stands between the client and the world; tests put loopback here, nobody else."""

    resolver: NameResolver = field(default_factory=SystemResolver)
    dial: httpcore2.AsyncNetworkBackend = field(default_factory=httpcore2.AnyIOBackend)
    tls: ssl.SSLContext | None = None  # None: the authorities that this machine trusts


class EgressClient:
    """Sends orders. One for the process: making the TLS context is what costs."""

    def __init__(self, *, denied: Sequence[Network] = (), parts: EgressParts | None = None) -> None:
        # At DEBUG it writes the heads of answers, which may repeat what was sent.
        logging.getLogger("httpcore2").setLevel(logging.WARNING)
        self._parts = parts or EgressParts()
        self._backend = PublicBackend(
            resolver=self._parts.resolver,
            denied=denied,
            dial=self._parts.dial,
            max_wire_bytes=MAX_BODY_BYTES + _WIRE_OVERHEAD_BYTES,
        )
        self._local = LocalBackend(
            dial=self._parts.dial, max_wire_bytes=MAX_BODY_BYTES + _WIRE_OVERHEAD_BYTES
        )
        self._pools: dict[bool, httpcore2.AsyncConnectionPool] = {}  # by whether it is local
        self._opening = asyncio.Lock()
        self._limits: set[asyncio.Timeout] = set()
        self._closed = False

    async def send(self, order: EgressOrder) -> EgressAnswer:
        """The answer, whatever its status. EgressError when there is none that may be used."""
        limit = asyncio.timeout(order.deadline_seconds)
        self._limits.add(limit)
        try:
            async with limit:
                return await self._follow(order)
        except TimeoutError:
            raise refused(Fault.DEADLINE) from None
        except EgressError:
            raise
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
            # TCP has its own words in the backend: what fails in connecting now is TLS.
            raise refused(Fault.TLS) from None
        except (httpcore2.NetworkError, httpcore2.TimeoutException, OSError):
            raise refused(Fault.UNREACHABLE) from None
        except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, ValueError):
            raise refused(Fault.PROTOCOL) from None
        finally:
            self._limits.discard(limit)

    async def admit(self, url: str, policy: UrlPolicy) -> None:
        """EgressError if a request to this URL would not leave now. Looks the name up, no more."""
        judged = _judged(EgressOrder(url=url, policy=policy, method="POST", body=b""), url)
        if policy.is_local(judged):
            return
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                await self._backend.public_addresses(judged.host)
        except TimeoutError:
            raise refused(Fault.DEADLINE) from None

    async def close(self) -> None:
        """Send nothing more; what is under way ends at once with an EgressError."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)
        self._parts.resolver.close()
        for pool in self._pools.values():
            await pool.aclose()

    async def _follow(self, order: EgressOrder) -> EgressAnswer:
        url, bound = _judged(order, order.url), order.credentials
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._exchange(order, url, bound)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None or order.method not in READING:
                return answer
            leads = followed(url, location.encode("latin-1"))
            if leads is None:
                raise refused(Fault.URL)
            before, url = url, _judged(order, leads)
            if before.scheme == "https" and url.scheme != "https":
                raise refused(Fault.DOWNGRADE)
            if before.origin != url.origin:
                bound = ()  # for good: a way back would be the other host's choice
        raise refused(Fault.REDIRECTS)

    async def _exchange(
        self, order: EgressOrder, url: SafeUrl, bound: Sequence[ToolCredential]
    ) -> EgressAnswer:
        request = httpcore2.Request(
            order.method,
            httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            headers=_fields(order, url, bound),
            content=order.body,
        )
        pool = await self._connections(is_local=order.policy.is_local(url))
        response = await pool.handle_async_request(request)
        try:
            return await _read(order, url, response)
        finally:
            await response.aclose()

    async def _connections(self, *, is_local: bool) -> httpcore2.AsyncConnectionPool:
        """The pool, made at the first use. Nothing is kept alive: each request is checked anew."""
        async with self._opening:
            if self._closed:
                raise refused(Fault.CLOSED)
            pool = self._pools.get(is_local)
            if pool is None:
                tls = self._parts.tls or await asyncio.to_thread(httpcore2.default_ssl_context)
                pool = self._pools[is_local] = httpcore2.AsyncConnectionPool(
                    ssl_context=tls,
                    max_connections=_MAX_CONNECTIONS,
                    max_keepalive_connections=0,
                    retries=0,
                    network_backend=self._local if is_local else self._backend,
                )
            return pool


def _judged(order: EgressOrder, text: str) -> SafeUrl:
    verdict = order.policy.judge(text, order.method, order.body)
    if isinstance(verdict, Fault):
        raise refused(verdict)
    return verdict


def _fields(
    order: EgressOrder, url: SafeUrl, bound: Sequence[ToolCredential]
) -> list[tuple[bytes, bytes]]:
    """The head of the request. A body has its length said, so that it is never sent in chunks."""
    fields = [
        (b"Host", url.authority.encode()),
        (b"User-Agent", _AGENT),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    if order.body is not None:
        fields.append((b"Content-Length", str(len(order.body)).encode()))
    fields += [(name.encode(), value.encode()) for name, value in order.headers]
    fields += [(one.header.encode(), one.value.encode()) for one in bound if one.fits(url)]
    return fields


async def _read(order: EgressOrder, url: SafeUrl, response: httpcore2.Response) -> EgressAnswer:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }
    if response.status not in _FINAL_STATUSES:
        raise refused(Fault.PROTOCOL)
    body, truncated = bytearray(), False
    if order.max_body_bytes and (response.status not in _REDIRECTS or order.method not in READING):
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise refused(Fault.ENCODING)
        async with aclosing(response.aiter_stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > order.max_body_bytes:
                    truncated = True
                    break
    return EgressAnswer(
        status=response.status,
        url=str(url),
        headers=headers,
        body=bytes(body[: order.max_body_bytes]),
        truncated=truncated,
    )
