"""The one open client of the Messages API: sends a request, reads its stream, names its failures.

This module imports the SDK, which costs seconds: only `anthropic.py` imports it, late, in a thread.
Nothing the provider says about a failure leaves here: it may quote the request or the key.

Threat: Supply chain attacks
"""

from collections.abc import Mapping
from typing import assert_never

import anthropic
from anthropic.types import (
    ContentBlockParam,
    MessageParam,
    TextBlockParam,
    ToolParam,
    ToolUseBlockParam,
)

from app.domain.step import (
    Message,
    ModelReply,
    ModelRequest,
    ReplyMessage,
    ResultsMessage,
    TextMessage,
)
from app.providers.message_stream import ReplyAssembler
from app.providers.prices import ModelPrice
from app.providers.provider import ModelFailure, model_error
from app.providers.wire.event_lines import EventLines
from app.providers.wire.exchange import exchanged
from app.providers.wire.model_http import (
    TIMEOUT,
    model_client,
    quieten,
    status_failure,
    transport_failure,
)
from app.providers.wire.tool_words import past_name, turns, wire_name, wire_names, with_our_names

_BUSY = 529  # the status of this API alone


class MessagesSession:
    """One shared client. Building it blocks for some tens of milliseconds; it opens nothing."""

    def __init__(self, base_url: str) -> None:
        quieten(["anthropic"])
        self._client = anthropic.AsyncAnthropic(
            api_key="set-for-each-request",  # given, so that the SDK looks for no key of its own
            base_url=base_url,
            max_retries=0,  # each attempt is a record of ours
            timeout=TIMEOUT,
            open_telemetry=False,
            http_client=model_client(base_url),
        )
        _ = self._client.messages  # imports the larger half of the SDK

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def exchange(self, key: str, request: ModelRequest, price: ModelPrice) -> ModelReply:
        """One request, one whole reply, within the request's own deadline; else `ModelError`."""
        names = wire_names(request)
        messages = _wire_messages(request, names)
        if not messages:
            raise model_error(ModelFailure.INVALID_REQUEST)
        reply = await exchanged(
            lambda: self._send(key, request, price, messages),
            _sdk_failure,
            request.timeout_seconds,
        )
        return with_our_names(reply, names)

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
            # The SDK's typed events are built without validation, so a field may hold anything, and
            # its reader of lines copies one without end again for every piece that comes.
            lines, assembler = EventLines(), ReplyAssembler(price)
            async for piece in stream.response.aiter_bytes():
                for data in lines.take(piece):
                    assembler.take(data)
        return assembler.finished()


def _wire_tools(request: ModelRequest) -> list[ToolParam]:
    return [
        {
            "name": wire_name(tool.name),
            "description": tool.description,
            "input_schema": {**tool.parameters},
        }
        for tool in request.tools
    ]


def _wire_messages(request: ModelRequest, names: Mapping[str, str]) -> list[MessageParam]:
    """The conversation as the API wants it: roles alternate, no block is blank."""

    def blocks_of(message: Message) -> list[ContentBlockParam]:
        match message:
            case TextMessage():
                return _text_blocks(message.text)
            case ReplyMessage():
                return _reply_blocks(message, names)
            case ResultsMessage():
                return _result_blocks(message)
            case _:
                assert_never(message)

    found = turns(request.messages, blocks_of)
    return [_wire_turn(blocks, from_model=from_model) for from_model, blocks in found]


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
        block: ToolUseBlockParam = {
            "type": "tool_use",
            "id": call.call_id,
            "name": past_name(call.name, names),
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


def _sdk_failure(error: Exception) -> ModelFailure | None:
    """Which failure an SDK error is, by its class and status alone; None: it is none."""
    match error:
        case anthropic.APIStatusError():
            return status_failure(error.status_code, busy=_BUSY)
        case anthropic.APIResponseValidationError():
            return ModelFailure.MALFORMED_REPLY
        case anthropic.APIConnectionError():
            return transport_failure(error.__cause__)
        case anthropic.AnthropicError():
            return ModelFailure.SERVER_ERROR
        case _:
            return None
