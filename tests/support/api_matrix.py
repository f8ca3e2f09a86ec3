"""What tests of the HTTP edge share: operations of a document, problems, raw requests, scripts."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from app.domain.run import JsonObject, Usage
from app.domain.step import ModelReply, ModelRequest, StopReason, ToolCall
from app.providers.scripted import Scripted, ScriptedProvider
from app.wiring import Overrides

Document = Mapping[str, Any]
MEDIA_TYPE = "application/problem+json"
UNKNOWN_RUN = "run_" + "0" * 32
UNKNOWN_ERASURE = "ers_" + "0" * 32
UNKNOWN_ENDPOINT = "whe_" + "0" * 32
UNKNOWN_APPROVAL = "apr_" + "0" * 32
UNKNOWN_DELIVERY = "whd_" + "0" * 32
UNKNOWN_ACTIVATION = "pol_" + "0" * 32
OPEN_OPERATIONS = frozenset({"system_health", "system_ready", "system_version"})
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_PROBLEM_FIELDS = frozenset(
    {
        *("type", "title", "status", "code", "detail", "request_id"),
        *("run_id", "rules", "errors", "receipt"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of an OpenAPI document."""

    method: str
    path: str
    described: Document

    @property
    def operation_id(self) -> str:
        return str(self.described["operationId"])

    @property
    def is_open(self) -> bool:
        return self.operation_id in OPEN_OPERATIONS

    @property
    def has_body(self) -> bool:
        return "requestBody" in self.described

    def address(
        self,
        run_id: str = UNKNOWN_RUN,
        endpoint_id: str = UNKNOWN_ENDPOINT,
        delivery_id: str = UNKNOWN_DELIVERY,
    ) -> str:
        """The path with its parameters filled in. KeyError for a parameter nobody thought of."""
        return self.path.format_map(
            {
                "run_id": run_id,
                "name": "assistant",
                "erasure_id": UNKNOWN_ERASURE,
                "endpoint_id": endpoint_id,
                "delivery_id": delivery_id,
                "policy_id": "default",
                "activation_id": UNKNOWN_ACTIVATION,
                "version": "1",
                "seq": "0",
                "approval_id": UNKNOWN_APPROVAL,
            }
        )

    def needed_headers(self) -> list[tuple[str, str]]:
        """Headers without which it is refused."""
        parameters = self.described.get("parameters", [])
        headers = (item for item in parameters if item["in"] == "header")
        needed = [item["name"] for item in headers if item["required"]]
        return [("If-Match", "*")] if "if-match" in needed else []

    def small_body(self, run_id: str = UNKNOWN_RUN) -> dict[str, Any] | None:
        """A good body, where one is needed."""
        if not self.has_body:
            return None
        if "/webhook-endpoints" in self.path:
            made = {"url": "https://www.allowed.example/", "events": ["run.failed"]}
            return made if self.method == "POST" else {"enabled": True}
        if self.path.endswith("/erasures"):
            return {
                "action": "anonymize_run",
                "run_id": run_id,
                "legal_basis": "gdpr.art17",
                "request_ref": "ticket 1",
            }
        if self.path.endswith("/policy-checks"):
            return {"features": {"point": "run.output"}}
        if "/policies" in self.path:
            return {"bundle": {}} if self.path.endswith("/simulate") else {}
        if self.path.endswith("/decision"):
            return {"decision": "deny", "digest": "0" * 64}
        if self.path.endswith("/stops"):
            return {"agent": "nobody"}
        return {"reason": "court"} if self.path.endswith("/hold") else {"task": "1+1"}

    def send(
        self,
        client: httpx2.Client,
        run_id: str = UNKNOWN_RUN,
        headers: Sequence[tuple[str, str]] = (),
        query: Mapping[str, str] | None = None,
        *,
        webhook: tuple[str, str] = (UNKNOWN_ENDPOINT, UNKNOWN_DELIVERY),
    ) -> httpx2.Response:
        """Make the request, with a small good body where one is needed. No stream is followed."""
        parameters = self.described.get("parameters", [])
        needed = {item["name"]: "0" for item in parameters if _is_needed_query(item)}
        wanted = {**needed, **(query or {})}
        if self.path.endswith("/events"):
            wanted["follow"] = "false"
        body = self.small_body(run_id)
        if self.path.endswith("/diff"):
            wanted["other"] = run_id
        return client.request(
            self.method,
            self.address(run_id, *webhook),
            params=wanted,
            json=body,
            headers=[*headers, *self.needed_headers()],
        )


def _is_needed_query(parameter: Document) -> bool:
    return bool(parameter["in"] == "query" and parameter["required"])


def operations(document: Document) -> list[Operation]:
    """Every operation, open and protected."""
    return [
        Operation(method=method.upper(), path=path, described=described)
        for path, item in document["paths"].items()
        for method, described in item.items()
        if method in _METHODS
    ]


def problem_of(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem in a response, which must be a whole one of this status and code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert set(body) == _PROBLEM_FIELDS
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"/problems/{code}"
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert ("www-authenticate" in response.headers) == (status == 401)
    comes_again = status in (429, 503) or code in ("not-sequenced", "idempotency-in-flight")
    assert ("retry-after" in response.headers) == comes_again
    return body


def is_let_in(response: httpx2.Response) -> bool:
    """Whether the request was served, be it with the word that no log is signed here yet."""
    if response.status_code in {200, 201, 202}:
        return True
    return response.status_code == 409 and response.json()["code"] == "not-sequenced"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """An answer read off a socket."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def raw_exchange(url: str, request: bytes) -> RawAnswer:
    """Send exactly these bytes; what comes back up to the end of the first answer."""
    place = urlsplit(url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 80), timeout=30) as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += _more(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:])
        headers = {name.lower(): value for name, value in pairs}
        while len(body) < int(headers.get("content-length", "0")):
            body += _more(connection)
    return RawAnswer(status=int(lines[0].split()[1]), headers=headers, body=body)


def _more(connection: socket.socket) -> bytes:
    chunk = connection.recv(65536)
    assert chunk, "the server closed the connection before the end of its answer"
    return chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One server-sent event, or a comment when `kind` is empty."""

    seq: int
    kind: str
    data: dict[str, Any]


def stream_events(lines: Iterator[str]) -> Iterator[StreamEvent]:
    """The events of a stream as they come; comments have seq -1 and no kind."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield StreamEvent(seq=-1, kind="", data={})
        elif line:
            name, _, value = line.partition(": ")
            assert name in {"id", "event", "data"}
            assert name not in fields
            fields[name] = value
        elif fields:
            yield StreamEvent(
                seq=int(fields["id"]), kind=fields["event"], data=json.loads(fields["data"])
            )
            fields = {}


def patiently() -> Iterator[None]:
    """Turns to look again; AssertionError when what is waited for has not come in two minutes."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        yield
        time.sleep(0.01)
    raise AssertionError("it did not come")


Hold = Callable[[ModelRequest], Awaitable[None]]


class Gate:
    """Holds a scripted reply back until the test opens it; sees when the wait is cancelled."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.cancelled = threading.Event()
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, _request: ModelRequest) -> None:
        self.reached.set()
        try:
            while not self._open.is_set():  # noqa: ASYNC110 - the test's own thread opens it
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def says(text: str) -> ModelReply:
    """A last reply."""
    usage = Usage(input_tokens=10, output_tokens=5, cost_micros=105)
    return ModelReply(text=text, calls=(), stop_reason=StopReason.END, usage=usage)


def calls(name: str, **arguments: str) -> ModelReply:
    """A reply that proposes one tool call."""
    proposed: JsonObject = dict(arguments)
    call = ToolCall(call_id=f"call-{name}", name=name, arguments=proposed)
    usage = Usage(input_tokens=10, output_tokens=5, cost_micros=105)
    return ModelReply(text="", calls=(call,), stop_reason=StopReason.TOOL_USE, usage=usage)


def scripted(*replies: Scripted, gate: Hold | None = None) -> Overrides:
    """A deployment whose model answers from this list."""
    provider = ScriptedProvider(replies, before_reply=gate)
    return Overrides(providers={"scripted": provider}, default_model="scripted")


def finished(client: httpx2.Client, body: Mapping[str, object]) -> dict[str, Any]:
    """Submit and wait for the end of the run."""
    response = client.post("/v1/runs", json=body, headers={"Prefer": "wait=30"})
    assert response.status_code == 200, response.text
    run: dict[str, Any] = response.json()
    return run
