"""The wires of the four providers, each as its own API writes it: what contract tests run over.

A wire makes the scenarios that `fake_messages_api` serves, says what its real API would object to,
and reads back what a provider asked in words that are the same for all.
"""

import base64
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from app.providers.anthropic import anthropic_provider
from app.providers.extras.extra_providers import (
    bedrock_provider,
    gemini_provider,
    openai_provider,
)
from app.providers.provider import ModelProvider
from tests.support import fake_messages_api as fake
from tests.support.aws_wire import event_frame, signature_objection
from tests.support.fake_messages_api import (
    Call,
    Ending,
    FakeMessagesApi,
    Scenario,
    Script,
    SeenRequest,
    fake_messages_api,
)

Headers: TypeAlias = tuple[tuple[str, str], ...]
KEY = "sk-test-0123456789-secret"
REGION = "eu-central-1"
SECRET_IN_MESSAGE = "sk-secret-in-a-message"
JSON_TYPE = (("content-type", "application/json"),)
SSE_TYPE = (("content-type", "text/event-stream"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a request told the model, whoever's wire it went over."""

    system: str
    texts: list[tuple[str, str]] = field(default_factory=list)  # (user or model, text)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    results: list[tuple[str, bool]] = field(default_factory=list)  # (text, is an error)
    tools: list[str] = field(default_factory=list)
    max_output_tokens: int = 0


class Wire(Protocol):
    """One provider's API."""

    name: str
    model: str
    overloaded: int  # the status with which it says so
    gives_ids: bool

    def provider(self, base_url: str, key: str = KEY) -> ModelProvider: ...
    def objection(self, seen: SeenRequest) -> str: ...
    def chunks(self, content: str, calls: Sequence[Call], stop: str) -> tuple[bytes, ...]: ...
    def raw_arguments(self, written: str) -> Scenario: ...
    def malformed(self) -> Scenario: ...
    def error_event(self, kind: str) -> Scenario: ...
    def told(self, seen: SeenRequest) -> Told: ...
    def held(self, content: bytes, *, pieces: int) -> Scenario: ...

    headers: Headers


def reply(
    wire: Wire, content: str = "Hello there.", *calls: Call, stop: str | None = None
) -> Scenario:
    """A whole reply; `stop` is one of end, tool_use, cut, refusal, unknown."""
    told = stop or ("tool_use" if calls else "end")
    return Scenario(headers=wire.headers, chunks=wire.chunks(content, calls, told))


def status(wire: Wire, code: int, *, retry_after: int | None = None) -> Scenario:
    """An error response that quotes the request and the key."""
    del wire
    return fake.status(code, retry_after=retry_after)


def truncated(wire: Wire) -> Scenario:
    """The connection is cut after the first piece."""
    whole = reply(wire, "Half of this never arrives.")
    return Scenario(headers=wire.headers, chunks=whole.chunks[:1], ending=Ending.TRUNCATED)


def unfinished(wire: Wire) -> Scenario:
    """A body that ends cleanly, one piece early."""
    return Scenario(headers=wire.headers, chunks=reply(wire, "Looks complete.").chunks[:-1])


def slow(wire: Wire) -> Scenario:
    """Starts to answer and then says nothing more."""
    first = reply(wire).chunks[:1]
    return Scenario(headers=wire.headers, chunks=first, ending=Ending.HANGING)


def oversize(wire: Wire) -> Scenario:
    """Forty megabytes in one line or frame after another."""
    return wire.held(b"x" * (1 << 19), pieces=80)


def served(wire: Wire, script: Script) -> AbstractContextManager[FakeMessagesApi]:
    """The fake of this wire."""
    return fake_messages_api(script, wire.objection)


@asynccontextmanager
async def provider_of(wire: Wire, base_url: str, key: str = KEY) -> AsyncIterator[ModelProvider]:
    """The real provider, closed at the end."""
    provider = wire.provider(base_url, key)
    try:
        yield provider
    finally:
        await provider.close()


_MESSAGES_STOPS = {
    "end": "end_turn",
    "tool_use": "tool_use",
    "cut": "max_tokens",
    "refusal": "refusal",
    "unknown": "because",
}


class MessagesWire:
    """Anthropic's Messages API."""

    name = "anthropic"
    model = "claude-sonnet-5-5"
    overloaded = 529
    gives_ids = True
    headers: Headers = SSE_TYPE

    def provider(self, base_url: str, key: str = KEY) -> ModelProvider:
        return anthropic_provider(lambda: key, base_url=base_url)

    def objection(self, seen: SeenRequest) -> str:
        bad = "key" if seen.headers.get("authorization") != f"Bearer {KEY}" else ""
        return fake.objection_to(seen) or bad

    def chunks(self, content: str, calls: Sequence[Call], stop: str) -> tuple[bytes, ...]:
        blocks = [*fake.text_block(0, content)] if content else []
        for index, call in enumerate(calls, 1):
            blocks += fake.raw_tool_block(index, call, json.dumps(call.arguments))
        return (fake.start(), *blocks, *fake.finish(_MESSAGES_STOPS[stop]))

    def raw_arguments(self, written: str) -> Scenario:
        return fake.raw_tool_input(written)

    def malformed(self) -> Scenario:
        return fake.malformed_event()

    def error_event(self, kind: str) -> Scenario:
        return fake.error_event(
            {"overloaded": "overloaded_error", "limit": "rate_limit_error"}[kind]
        )

    def held(self, content: bytes, *, pieces: int) -> Scenario:
        return Scenario(headers=self.headers, chunks=(fake.start(), b"data: ", *[content] * pieces))

    def told(self, seen: SeenRequest) -> Told:
        body = seen.body
        told = Told(
            system=body.get("system", ""),
            tools=[tool["name"] for tool in body.get("tools", [])],
            max_output_tokens=body["max_tokens"],
        )
        for message in body["messages"]:
            role = "model" if message["role"] == "assistant" else "user"
            for block in message["content"]:
                match block["type"]:
                    case "text":
                        told.texts.append((role, block["text"]))
                    case "tool_use":
                        told.calls.append((block["name"], block["input"]))
                    case "tool_result":
                        told.results.append((block["content"], block["is_error"]))
        return told


class ResponsesWire:
    """OpenAI's Responses API."""

    name = "openai"
    model = "gpt-6.1-sol"
    overloaded = 503
    gives_ids = True
    headers: Headers = SSE_TYPE

    def provider(self, base_url: str, key: str = KEY) -> ModelProvider:
        return openai_provider(lambda: key, base_url=f"{base_url}/v1")

    def objection(self, seen: SeenRequest) -> str:
        body = seen.body
        items = body.get("input", [])
        asked = [item["call_id"] for item in items if item["type"] == "function_call"]
        answered = [item["call_id"] for item in items if item["type"] == "function_call_output"]
        problems = {
            "path": seen.path != "/v1/responses",
            "key": seen.headers.get("authorization") != f"Bearer {KEY}",
            "stream": body.get("stream") is not True,
            "store": body.get("store") is not False,
            "input": not items,
            "results": asked != answered,
            "names": any(not fake._NAME.fullmatch(tool["name"]) for tool in body.get("tools", [])),
        }
        return ", ".join(name for name, wrong in problems.items() if wrong)

    def _event(self, kind: str, **fields: object) -> bytes:
        data = json.dumps({"type": kind, "sequence_number": 1, **fields}, ensure_ascii=False)
        return f"event: {kind}\ndata: {data}\n\n".encode()

    def _last(self, output: list[object], stop: str) -> bytes:
        status, details = "completed", None
        if stop in ("cut", "filtered"):
            status = "incomplete"
            details = {"reason": "max_output_tokens" if stop == "cut" else "content_filter"}
        if stop == "unknown":
            status = "sideways"
        response = {
            "id": "resp_1",
            "status": status,
            "incomplete_details": details,
            "output": output,
            "usage": {
                "input_tokens": 25,
                "input_tokens_details": {"cached_tokens": 5},
                "output_tokens": 15,
                "output_tokens_details": {"reasoning_tokens": 3},
                "total_tokens": 40,
            },
        }
        kind = "response.incomplete" if status == "incomplete" else "response.completed"
        return self._event(kind, response=response)

    def chunks(self, content: str, calls: Sequence[Call], stop: str) -> tuple[bytes, ...]:
        part: dict[str, object] = {"type": "output_text", "text": content, "annotations": []}
        if stop == "refusal":
            part = {"type": "refusal", "refusal": content}
        output: list[object] = [{"type": "reasoning", "id": "rs_1", "summary": []}]
        if content:
            output.append({"type": "message", "role": "assistant", "content": [part]})
        output += [
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": json.dumps(call.arguments),
            }
            for call in calls
        ]
        return (
            self._event("response.created", response={"id": "resp_1", "status": "in_progress"}),
            self._event("response.output_text.delta", delta=content[:3], output_index=0),
            self._event("response.something_new", delta=""),
            self._last(output, stop),
        )

    def raw_arguments(self, written: str) -> Scenario:
        call = {"type": "function_call", "call_id": "c", "name": "n", "arguments": written}
        return Scenario(headers=self.headers, chunks=(self._last([call], "end"),))

    def malformed(self) -> Scenario:
        good = self.chunks("Hi", (), "end")
        return Scenario(headers=self.headers, chunks=(b'data: {"type": \n\n', *good))

    def error_event(self, kind: str) -> Scenario:
        code = {"overloaded": "server_overloaded", "limit": "rate_limit_exceeded"}[kind]
        failed = {"status": "failed", "error": {"code": code, "message": SECRET_IN_MESSAGE}}
        chunks = (
            self._event("response.created", response={}),
            self._event("response.failed", response=failed),
        )
        return Scenario(headers=self.headers, chunks=chunks)

    def held(self, content: bytes, *, pieces: int) -> Scenario:
        return Scenario(headers=self.headers, chunks=(b"data: ", *[content] * pieces))

    def told(self, seen: SeenRequest) -> Told:
        body = seen.body
        told = Told(
            system=body.get("instructions", ""),
            tools=[tool["name"] for tool in body.get("tools", [])],
            max_output_tokens=body["max_output_tokens"],
        )
        for item in body["input"]:
            match item["type"]:
                case "message" if item["role"] == "user":
                    told.texts.extend(("user", part["text"]) for part in item["content"])
                case "message":
                    told.texts.append(("model", item["content"]))
                case "function_call":
                    told.calls.append((item["name"], json.loads(item["arguments"])))
                case "function_call_output":
                    failed = item["output"].startswith("The call failed.\n")
                    text = item["output"].removeprefix("The call failed.\n")
                    told.results.append((text, failed))
        return told


_GEMINI_STOPS = {
    "end": "STOP",
    "tool_use": "STOP",
    "cut": "MAX_TOKENS",
    "refusal": "SAFETY",
    "unknown": "BECAUSE",
}


class GeminiWire:
    """Google's Gemini API."""

    name = "gemini"
    model = "gemini-3.8-flash"
    overloaded = 503
    gives_ids = False
    headers: Headers = SSE_TYPE

    def provider(self, base_url: str, key: str = KEY) -> ModelProvider:
        return gemini_provider(lambda: key, base_url=base_url)

    def objection(self, seen: SeenRequest) -> str:
        body = seen.body
        contents = body.get("contents", [])
        parts = [part for content in contents for part in content["parts"]]
        firsts = [
            [part for part in content["parts"] if "functionCall" in part][:1]
            for content in contents
        ]
        want = base64.urlsafe_b64encode(b"skip_thought_signature_validator").decode()
        asked = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
        told = [part["functionResponse"]["name"] for part in parts if "functionResponse" in part]
        problems = {
            "path": seen.path != f"/v1beta/models/{self.model}:streamGenerateContent?alt=sse",
            "key": seen.headers.get("x-goog-api-key") != KEY or KEY in seen.path,
            "contents": not contents or contents[0]["role"] != "user",
            "roles": any(one["role"] == two["role"] for one, two in itertools.pairwise(contents)),
            "signature": any(part["thoughtSignature"] != want for some in firsts for part in some),
            "results": asked != told,
        }
        return ", ".join(name for name, wrong in problems.items() if wrong)

    def _event(self, body: object) -> bytes:
        return f"data: {json.dumps(body, ensure_ascii=False)}\r\n\r\n".encode()

    def _chunk(self, parts: list[object], stop: str | None) -> bytes:
        candidate: dict[str, object] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if stop is not None:
            candidate["finishReason"] = _GEMINI_STOPS[stop]
        usage = {
            "promptTokenCount": 25,
            "cachedContentTokenCount": 5,
            "candidatesTokenCount": 12,
            "thoughtsTokenCount": 3,
        }
        return self._event({"candidates": [candidate], "usageMetadata": usage})

    def chunks(self, content: str, calls: Sequence[Call], stop: str) -> tuple[bytes, ...]:
        half = len(content) // 2
        made: list[object] = [
            {"functionCall": {"name": call.name, "args": call.arguments}} for call in calls
        ]
        return (
            self._chunk([{"text": "thinking", "thought": True}], None),
            self._chunk([{"text": content[:half]}] if half else [], None),
            self._chunk([*([{"text": content[half:]}] if content else []), *made], stop),
        )

    def raw_arguments(self, written: str) -> Scenario:
        whole = self._chunk([{"functionCall": {"name": "n", "args": "HERE"}}], "tool_use")
        return Scenario(headers=self.headers, chunks=(whole.replace(b'"HERE"', written.encode()),))

    def malformed(self) -> Scenario:
        good = self.chunks("Hi", (), "end")
        return Scenario(headers=self.headers, chunks=(b'data: {"candidates": \r\n\r\n', *good))

    def error_event(self, kind: str) -> Scenario:
        code = {"overloaded": 503, "limit": 429}[kind]
        error = {"code": code, "message": SECRET_IN_MESSAGE, "status": "SOME"}
        chunks = (self.chunks("Hi there", (), "end")[1], self._event({"error": error}))
        return Scenario(headers=self.headers, chunks=chunks)

    def held(self, content: bytes, *, pieces: int) -> Scenario:
        return Scenario(headers=self.headers, chunks=(b"data: ", *[content] * pieces))

    def told(self, seen: SeenRequest) -> Told:
        body = seen.body
        system = body.get("systemInstruction", {}).get("parts", [])
        told = Told(
            system="".join(part["text"] for part in system),
            tools=[
                declared["name"]
                for tool in body.get("tools", [])
                for declared in tool["functionDeclarations"]
            ],
            max_output_tokens=body["generationConfig"]["maxOutputTokens"],
        )
        for content in body["contents"]:
            for part in content["parts"]:
                if "text" in part:
                    told.texts.append((content["role"], part["text"]))
                if "functionCall" in part:
                    told.calls.append((part["functionCall"]["name"], part["functionCall"]["args"]))
                if "functionResponse" in part:
                    ((word, text),) = part["functionResponse"]["response"].items()
                    told.results.append((text, word == "error"))
        return told


_CONVERSE_STOPS = {
    "end": "end_turn",
    "tool_use": "tool_use",
    "cut": "max_tokens",
    "refusal": "content_filtered",
    "unknown": "because",
}


class ConverseWire:
    """Amazon Bedrock's Converse API."""

    name = "bedrock"
    model = "global.amazon.nova-2-lite-v1:0"
    overloaded = 503
    gives_ids = True
    headers: Headers = (("content-type", "application/vnd.amazon.eventstream"),)

    def provider(self, base_url: str, key: str = KEY) -> ModelProvider:
        del key  # the SDK's own chain finds the credentials
        return bedrock_provider(REGION, base_url=base_url)

    def objection(self, seen: SeenRequest) -> str:
        messages = seen.body.get("messages", [])
        blocks = [block for message in messages for block in message["content"]]
        asked = [block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block]
        told = [block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block]
        problems = {
            "path": seen.path != "/model/global.amazon.nova-2-lite-v1%3A0/converse-stream",
            "messages": not messages or messages[0]["role"] != "user",
            "roles": any(one["role"] == two["role"] for one, two in itertools.pairwise(messages)),
            "results": asked != told,
        }
        wrong = ", ".join(name for name, is_wrong in problems.items() if is_wrong)
        return wrong or signature_objection(seen, KEY, REGION)

    def _frames(self, events: Sequence[tuple[str, object]]) -> Iterator[bytes]:
        for name, body in events:
            headers = {":message-type": "event", ":event-type": name}
            yield event_frame(headers, json.dumps(body, ensure_ascii=False).encode())

    def _start(self, index: int, call: Call) -> tuple[str, object]:
        use = {"toolUse": {"toolUseId": call.call_id, "name": call.name}}
        return "contentBlockStart", {"start": use, "contentBlockIndex": index}

    def _delta(self, index: int, delta: object) -> tuple[str, object]:
        return "contentBlockDelta", {"delta": delta, "contentBlockIndex": index}

    def _finish(self, stop: str) -> list[tuple[str, object]]:
        usage = {
            "inputTokens": 15,
            "cacheReadInputTokens": 8,
            "cacheWriteInputTokens": 2,
            "outputTokens": 15,
            "totalTokens": 40,
        }
        return [
            ("messageStop", {"stopReason": _CONVERSE_STOPS[stop]}),
            ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
        ]

    def chunks(self, content: str, calls: Sequence[Call], stop: str) -> tuple[bytes, ...]:
        events: list[tuple[str, object]] = [("messageStart", {"role": "assistant"})]
        if content:
            half = len(content) // 2
            events += [
                self._delta(0, {"text": piece}) for piece in (content[:half], content[half:])
            ]
            events.append(("contentBlockStop", {"contentBlockIndex": 0}))
        events.append(self._delta(50, {"reasoningContent": {"text": "thinking"}}))
        events.append(("contentBlockStop", {"contentBlockIndex": 50}))
        for index, call in enumerate(calls, 1):
            written = json.dumps(call.arguments)
            events.append(self._start(index, call))
            events += [
                self._delta(index, {"toolUse": {"input": piece}})
                for piece in (written[:5], written[5:])
            ]
            events.append(("contentBlockStop", {"contentBlockIndex": index}))
        return tuple(self._frames([*events, *self._finish(stop)]))

    def raw_arguments(self, written: str) -> Scenario:
        events = [
            self._start(0, Call(name="n", arguments={})),
            self._delta(0, {"toolUse": {"input": written}}),
            ("contentBlockStop", {"contentBlockIndex": 0}),
            *self._finish("tool_use"),
        ]
        return Scenario(headers=self.headers, chunks=tuple(self._frames(events)))

    def malformed(self) -> Scenario:
        good = self.chunks("Hi", (), "end")
        spoiled = bytearray(good[1])
        spoiled[-6] ^= 1  # within the payload, so that its checksum no longer fits
        return Scenario(headers=self.headers, chunks=(good[0], bytes(spoiled), *good[2:]))

    def error_event(self, kind: str) -> Scenario:
        name = {"overloaded": "serviceUnavailableException", "limit": "throttlingException"}[kind]
        headers = {":message-type": "exception", ":exception-type": name}
        body = json.dumps({"message": SECRET_IN_MESSAGE}).encode()
        first = self.chunks("Hi", (), "end")[0]
        return Scenario(headers=self.headers, chunks=(first, event_frame(headers, body)))

    def held(self, content: bytes, *, pieces: int) -> Scenario:
        frame = event_frame({":message-type": "event", ":event-type": "new"}, b'"' + content + b'"')
        return Scenario(headers=self.headers, chunks=(frame,) * pieces)

    def told(self, seen: SeenRequest) -> Told:
        body = seen.body
        tools = body.get("toolConfig", {}).get("tools", [])
        told = Told(
            system="".join(block["text"] for block in body.get("system", [])),
            tools=[tool["toolSpec"]["name"] for tool in tools],
            max_output_tokens=body["inferenceConfig"]["maxTokens"],
        )
        for message in body["messages"]:
            role = "model" if message["role"] == "assistant" else "user"
            for block in message["content"]:
                if "text" in block:
                    told.texts.append((role, block["text"]))
                if "toolUse" in block:
                    told.calls.append((block["toolUse"]["name"], block["toolUse"]["input"]))
                if "toolResult" in block:
                    result = block["toolResult"]
                    (content,) = result["content"]
                    told.results.append((content["text"], result["status"] == "error"))
        return told


WIRES: tuple[Wire, ...] = (MessagesWire(), ResponsesWire(), GeminiWire(), ConverseWire())
