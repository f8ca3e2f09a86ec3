"""The one open client of the Messages API: sends a request, reads its stream, names its failures.

This module imports the SDK, which costs seconds: only `anthropic.py` imports it, late, in a thread.
Nothing the provider says about a failure leaves here: it may quote the request or the key.

Threat: Supply chain attacks
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from typing import assert_never

import anthropic
import httpx2
from anthropic.types import (
    ContentBlockParam,
    MessageParam,
    TextBlockParam,
    ToolParam,
    ToolUseBlockParam,
)

from app.domain.errors import ModelError
from app.domain.step import (
    ModelReply,
    ModelRequest,
    ReplyMessage,
    ResultsMessage,
    TextMessage,
    ToolCall,
)
from app.providers.message_stream import ReplyAssembler
from app.providers.prices import ModelPrice
from app.providers.provider import ModelFailure, model_error

_CONNECT_SECONDS = 5.0
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)  # what the API takes as the name of a tool
_QUIET_LOGGERS = ("anthropic", "httpx2", "httpcore2")

_STATUS_FAILURES: Mapping[int, ModelFailure] = {
    401: ModelFailure.AUTHENTICATION,
    402: ModelFailure.AUTHENTICATION,
    403: ModelFailure.AUTHENTICATION,
    408: ModelFailure.TIMEOUT,
    429: ModelFailure.RATE_LIMITED,
    529: ModelFailure.OVERLOADED,
}


class MessagesSession:
    """One shared client. Building it blocks for some tens of milliseconds; it opens nothing."""

    def __init__(self, base_url: str) -> None:
        # At DEBUG these loggers write whole prompts.
        for name in _QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)  # the rest is the deadline's
        self._client = anthropic.AsyncAnthropic(
            api_key="set-for-each-request",  # given, so that the SDK looks for no key of its own
            base_url=base_url,
            max_retries=0,  # each attempt is a record of ours
            timeout=timeout,
            open_telemetry=False,
            http_client=anthropic.DefaultAsyncHttpxClient(
                base_url=base_url,
                follow_redirects=False,  # a redirect would carry the prompt to another host
                timeout=timeout,
            ),
        )
        _ = self._client.messages  # imports the larger half of the SDK

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def exchange(self, key: str, request: ModelRequest, price: ModelPrice) -> ModelReply:
        """One request, one whole reply, within the request's own deadline; else `ModelError`."""
        names = _wire_names(request)
        messages = _wire_messages(request, names)
        if not messages:
            raise model_error(ModelFailure.INVALID_REQUEST)
        try:
            async with asyncio.timeout(request.timeout_seconds):
                reply = await self._send(key, request, price, messages)
        except ModelError as error:
            failure = ModelFailure(error.code)
        except TimeoutError:
            failure = ModelFailure.TIMEOUT
        except httpx2.HTTPError as error:  # while streaming these are not wrapped by the SDK
            failure = _transport_failure(error)
        except anthropic.AnthropicError as error:
            failure = _sdk_failure(error)
        except UnicodeDecodeError:
            failure = ModelFailure.MALFORMED_REPLY
        else:
            return _with_our_tool_names(reply, names)
        # Raised here and not inside an `except`: the provider's error, which may hold the request,
        # would otherwise travel along as the context of ours.
        raise model_error(failure)

    async def _send(
        self, key: str, request: ModelRequest, price: ModelPrice, messages: list[MessageParam]
    ) -> ModelReply:
        self._client.api_key = key
        stream = await self._client.messages.create(
            model=request.model,
            max_tokens=min(request.max_output_tokens, price.max_output_tokens),
            messages=messages,
            system=request.system if request.system.strip() else anthropic.omit,
            tools=_wire_tools(request) or anthropic.omit,
            stream=True,
        )
        async with stream:  # closes the connection on every way out, cancellation included
            # The SDK's typed events are built without validation, so a field may hold anything;
            # the raw ones promise nothing that is not kept.
            events = stream.raw_events(stream.response)
            assembler = ReplyAssembler(price)
            try:
                async for event in events:
                    assembler.take(event.event, event.data)
            finally:
                if isinstance(events, AsyncGenerator):
                    await events.aclose()
        return assembler.finished()


def _wire_name(name: str) -> str:
    return name.replace(".", "_")


def _wire_names(request: ModelRequest) -> dict[str, str]:
    """Wire name -> our name. Ours may hold dots, the API's may not; a clash is refused."""
    names = {_wire_name(tool.name): tool.name for tool in request.tools}
    usable = all(_WORD.fullmatch(name) is not None for name in names)
    if len(names) != len(request.tools) or not usable:
        raise model_error(ModelFailure.INVALID_REQUEST)
    return names


def _with_our_tool_names(reply: ModelReply, names: Mapping[str, str]) -> ModelReply:
    """The reply with our names of tools; a name that was never offered stays as it came."""
    calls = tuple(
        ToolCall(
            call_id=call.call_id,
            name=names.get(call.name, call.name),
            arguments=call.arguments,
        )
        for call in reply.calls
    )
    return ModelReply(
        text=reply.text, calls=calls, stop_reason=reply.stop_reason, usage=reply.usage
    )


def _wire_tools(request: ModelRequest) -> list[ToolParam]:
    return [
        {
            "name": _wire_name(tool.name),
            "description": tool.description,
            "input_schema": {**tool.parameters},
        }
        for tool in request.tools
    ]


def _wire_messages(request: ModelRequest, names: Mapping[str, str]) -> list[MessageParam]:
    """The conversation as the API wants it: roles alternate, no block is blank.

    Text of every origin but the model's replies is user content; the system prompt is the
    operator's alone and travels apart.
    """
    turns: list[tuple[bool, list[ContentBlockParam]]] = []  # (is the model's, blocks)
    for message in request.messages:
        match message:
            case TextMessage():
                from_model, blocks = False, _text_blocks(message.text)
            case ReplyMessage():
                from_model, blocks = True, _reply_blocks(message, names)
            case ResultsMessage():
                from_model, blocks = False, _result_blocks(message)
            case _:
                assert_never(message)
        if turns and turns[-1][0] == from_model:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((from_model, blocks))
    return [_wire_turn(blocks, from_model=from_model) for from_model, blocks in turns]


def _wire_turn(blocks: list[ContentBlockParam], *, from_model: bool) -> MessageParam:
    if from_model:
        return {"role": "assistant", "content": blocks}
    return {"role": "user", "content": blocks}


def _text_blocks(text: str) -> list[ContentBlockParam]:
    block: TextBlockParam = {"type": "text", "text": text}
    return [block] if text.strip() else []


def _reply_blocks(message: ReplyMessage, names: Mapping[str, str]) -> list[ContentBlockParam]:
    blocks = _text_blocks(message.text)
    for call in message.calls:
        wire = _wire_name(call.name)
        # A call of a tool that was never offered is in the history with its refusal. Its name is
        # the model's own; only what the API can read of it goes back.
        known = wire in names or _WORD.fullmatch(wire) is not None
        block: ToolUseBlockParam = {
            "type": "tool_use",
            "id": call.call_id,
            "name": wire if known else "unknown_tool",
            "input": {**call.arguments},
        }
        blocks.append(block)
    return blocks


def _result_blocks(message: ResultsMessage) -> list[ContentBlockParam]:
    return [
        {
            "type": "tool_result",
            "tool_use_id": result.call_id,
            "content": result.content,
            "is_error": result.is_error,
        }
        for result in message.results
    ]


def _sdk_failure(error: anthropic.AnthropicError) -> ModelFailure:
    """Which failure an SDK error is, by its class and status alone."""
    match error:
        case anthropic.APIStatusError():
            return _status_failure(error.status_code)
        case anthropic.APIResponseValidationError():
            return ModelFailure.MALFORMED_REPLY
        case anthropic.APIConnectionError():
            return _transport_failure(error.__cause__)
        case _:
            return ModelFailure.SERVER_ERROR


def _status_failure(status: int) -> ModelFailure:
    if status in _STATUS_FAILURES:
        return _STATUS_FAILURES[status]
    if status >= 500:  # noqa: PLR2004  # HTTP's own boundary
        return ModelFailure.SERVER_ERROR
    if status >= 400:  # noqa: PLR2004  # as above
        return ModelFailure.INVALID_REQUEST
    return ModelFailure.MALFORMED_REPLY  # a redirect, or a status the API does not have


def _transport_failure(error: BaseException | None) -> ModelFailure:
    """Which failure an error of the connection is."""
    match error:
        case (
            httpx2.ConnectError()
            | httpx2.ConnectTimeout()
            | httpx2.PoolTimeout()
            | httpx2.ProxyError()
            | httpx2.UnsupportedProtocol()
        ):
            return ModelFailure.UNREACHABLE
        case httpx2.TimeoutException():
            return ModelFailure.TIMEOUT
        case _:
            return ModelFailure.STREAM_BROKEN
