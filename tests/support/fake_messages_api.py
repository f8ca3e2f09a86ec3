"""A loopback server of `POST /v1/messages` that streams as the real API does, by script.

    with fake_messages_api([text("hello"), status(529)]) as api:
        provider = anthropic_provider(lambda: "sk-test", base_url=api.base_url)

A script is a sequence (one scenario a request, in order), a mapping from model name to scenario, or
a function of the request.
Requests that the real API would not accept are answered 400 whatever the script says.
"""

import asyncio
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Ending(StrEnum):
    """How a response ends."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  # the connection is cut inside the body
    HANGING = "hanging"  # nothing more comes until the client goes away


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scripted response."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "text/event-stream; charset=utf-8"),)
    chunks: tuple[bytes, ...] = ()
    ending: Ending = Ending.COMPLETE
    answers: bool = True  # False: not even a status line comes before the ending
    echoes_request: bool = False  # an error body that quotes the request and its key


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call that the scripted model makes."""

    name: str
    arguments: object
    call_id: str = "toolu_01"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    raw: bytes = b""


def event(kind: str, /, **fields: object) -> bytes:
    """One server-sent event as the API writes it."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def start(input_tokens: int = 25) -> bytes:
    message: dict[str, object] = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": input_tokens, "output_tokens": 1},
    }
    return event("message_start", message=message)


def finish(stop_reason: str, output_tokens: int = 15) -> tuple[bytes, ...]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return (
        event("message_delta", delta=delta, usage={"output_tokens": output_tokens}),
        event("message_stop"),
    )


def text_block(index: int, content: str) -> tuple[bytes, ...]:
    half = len(content) // 2
    pieces = [piece for piece in (content[:half], content[half:]) if piece]
    block = {"type": "text", "text": ""}
    return (
        event("content_block_start", index=index, content_block=block),
        event("ping"),
        *(
            event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
            for piece in pieces
        ),
        event("content_block_stop", index=index),
    )


def raw_tool_block(index: int, call: Call, written: str) -> tuple[bytes, ...]:
    """A tool_use block whose `input_json_delta`s add up to exactly `written`."""
    block = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
    third = max(1, len(written) // 3)
    pieces = ["", *(written[at : at + third] for at in range(0, len(written), third))]
    return (
        event("content_block_start", index=index, content_block=block),
        *(
            event(
                "content_block_delta",
                index=index,
                delta={"type": "input_json_delta", "partial_json": piece},
            )
            for piece in pieces
        ),
        event("content_block_stop", index=index),
    )


def thinking_block(index: int) -> tuple[bytes, ...]:
    block = {"type": "thinking", "thinking": "", "signature": ""}
    signature = {"type": "signature_delta", "signature": "EqQBCgIYAhIM"}
    return (
        event("content_block_start", index=index, content_block=block),
        event("content_block_delta", index=index, delta=signature),
        event("content_block_stop", index=index),
    )


def text(content: str = "Hello there.", *, stop_reason: str = "end_turn") -> Scenario:
    return Scenario(chunks=(start(), *text_block(0, content), *finish(stop_reason)))


def tool_use(*calls: Call, says: str = "Let me look.") -> Scenario:
    """Text, then one block for each call: several calls are parallel tool use."""
    chunks = [start(), *text_block(0, says)]
    for index, call in enumerate(calls, start=1):
        chunks += raw_tool_block(index, call, json.dumps(call.arguments, ensure_ascii=False))
    return Scenario(chunks=(*chunks, *finish("tool_use")))


_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def status(code: int, *, retry_after: int | None = None) -> Scenario:
    """An error response; its body quotes the request and the key, as a careless server might."""
    headers = [("content-type", "application/json")]
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    return Scenario(status=code, headers=tuple(headers), echoes_request=True)


def slow() -> Scenario:
    """Starts to answer and then says nothing more."""
    return Scenario(chunks=(start(),), ending=Ending.HANGING)


def silent() -> Scenario:
    """Takes the request and never answers."""
    return Scenario(answers=False, ending=Ending.HANGING)


def hung_up() -> Scenario:
    """Takes the request and closes the connection."""
    return Scenario(answers=False, ending=Ending.TRUNCATED)


def truncated() -> Scenario:
    """The connection is cut in the middle of a text."""
    whole = text("Half of this never arrives.")
    return Scenario(chunks=whole.chunks[:4], ending=Ending.TRUNCATED)


def malformed_event() -> Scenario:
    """An event whose data is not JSON, then a proper end."""
    bad = b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0,\n\n'
    return Scenario(chunks=(start(), *text_block(0, "Hi"), bad, *finish("end_turn")))


def error_event(kind: str = "overloaded_error") -> Scenario:
    """An error in the middle of a stream that began with status 200."""
    error = event("error", error={"type": kind, "message": "sk-secret-in-a-message"})
    return Scenario(chunks=(start(), *text_block(0, "Hi"), error))


def without_message_stop() -> Scenario:
    """A body that ends cleanly, one event early."""
    return Scenario(chunks=text("Looks complete.").chunks[:-1])


def raw_tool_input(written: str) -> Scenario:
    """A tool call whose input is exactly this text."""
    block = raw_tool_block(0, Call(name="calculator", arguments={}), written)
    return Scenario(chunks=(start(), *block, *finish("tool_use")))


Script = Sequence[Scenario] | Mapping[str, Scenario] | Callable[[SeenRequest], Scenario]


@dataclass(slots=True)
class FakeMessagesApi:
    """The running server: where it is, what it saw, and when clients came and went."""

    script: Script
    objection: Callable[[SeenRequest], str]
    base_url: str = ""
    requests: list[SeenRequest] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    streaming: threading.Event = field(default_factory=threading.Event)
    client_gone: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    open_connections: int = 0
    abandoned: int = 0  # hanging answers that a client no longer waits for
    _at: int = 0

    def _next(self, seen: SeenRequest) -> Scenario:
        if callable(self.script):
            return self.script(seen)
        if isinstance(self.script, Mapping):
            return self.script.get(seen.body["model"], status(404))
        scenario = self.script[self._at] if self._at < len(self.script) else status(500)
        self._at += 1
        return scenario

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.client_gone.set()
        except asyncio.CancelledError:
            # The server stops. asyncio's own callback logs an error for a handler left cancelled.
            return
        finally:
            self.open_connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection must close."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        path = head[0].split(" ")[1]
        seen = SeenRequest(path=path, headers=headers, body=json.loads(raw), raw=raw)
        self.requests.append(seen)
        self.arrived.set()
        objection = self.objection(seen)
        if objection:
            body = json.dumps({"type": "error", "error": {"message": objection}}).encode()
            json_type = (("content-type", "application/json"),)
            scenario = Scenario(status=400, headers=json_type, chunks=(body,))
        else:
            scenario = self._next(seen)
        try:
            return await self._answer(scenario, seen, reader, writer)
        finally:
            self.abandoned += scenario.ending is Ending.HANGING

    async def _answer(
        self,
        scenario: Scenario,
        seen: SeenRequest,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if scenario.answers:
            lines = [f"HTTP/1.1 {scenario.status} Scripted", "transfer-encoding: chunked"]
            lines += [f"{name}: {value}" for name, value in scenario.headers]
            writer.write("\r\n".join([*lines, "request-id: req_01", "", ""]).encode())
            for chunk in (*scenario.chunks, *_echo(scenario, seen)):
                writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                await writer.drain()
            self.streaming.set()
        if scenario.ending is Ending.HANGING:
            await reader.read(1)  # b"" when the client closes, reset when it aborts
            self.client_gone.set()
            return False
        if scenario.ending is Ending.TRUNCATED:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _echo(scenario: Scenario, seen: SeenRequest) -> Iterator[bytes]:
    if scenario.echoes_request:
        said = f"you sent {seen.headers} {seen.body}"
        error = {"type": _KINDS.get(scenario.status, "api_error"), "message": said}
        yield json.dumps({"type": "error", "error": error}).encode()


def objection_to(seen: SeenRequest) -> str:
    """Why the real API would refuse this request, or nothing."""
    body = seen.body
    messages = body.get("messages", [])
    names = [tool["name"] for tool in body.get("tools", [])]
    blocks = [block for message in messages for block in message["content"]]
    asked = {block["id"] for block in blocks if block["type"] == "tool_use"}
    answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
    problems = {
        "path": seen.path != "/v1/messages",
        "authorization": not (seen.headers.get("authorization") or seen.headers.get("x-api-key")),
        "version": "anthropic-version" not in seen.headers,
        "stream": body.get("stream") is not True,
        "max_tokens": not body.get("max_tokens", 0) >= 1,
        "messages": not messages or messages[0]["role"] != "user",
        "roles": any(one["role"] == two["role"] for one, two in itertools.pairwise(messages)),
        "blank text": any(b["type"] == "text" and not b["text"].strip() for b in blocks),
        "empty content": any(not message["content"] for message in messages),
        "tool name": any(_NAME.fullmatch(name) is None for name in names),
        "tool results": asked != answered,
    }
    return ", ".join(name for name, wrong in problems.items() if wrong)


@contextmanager
def fake_messages_api(
    script: Script, objection: Callable[[SeenRequest], str] = objection_to
) -> Iterator[FakeMessagesApi]:
    """The server on a free loopback port, in a thread of its own, until the block ends.

    With another `objection` it is the server of another API, which the script then speaks.
    """
    api = FakeMessagesApi(script, objection)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(api._serve, "127.0.0.1", 0, limit=16 * 1024 * 1024)
        api.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # lets closed transports finish

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, name="fake-messages-api")
    thread.start()
    try:
        assert ready.wait(120)
        yield api
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(120)
        assert not thread.is_alive()
