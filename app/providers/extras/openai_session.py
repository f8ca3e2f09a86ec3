"""The one open client of the Responses API: sends a request, reads its stream, names its failures.

Responses and not Chat Completions: there, models that think refuse tools. Nothing is stored at the
provider, and nothing that it says about a failure leaves here: it may quote the request or the key.

Threat: Supply chain attacks
"""

import json
from collections.abc import Mapping
from typing import assert_never

import httpx2
import openai
from openai.types.responses import (
    EasyInputMessageParam,
    FunctionToolParam,
    ResponseFunctionToolCallParam,
    ResponseInputItemParam,
    ResponseInputTextParam,
)
from openai.types.responses.response_input_item_param import FunctionCallOutput

from app.domain.step import (
    ModelReply,
    ModelRequest,
    ReplyMessage,
    ResultsMessage,
    TextMessage,
    ToolResult,
)
from app.providers.extras.openai_stream import FinalResponse
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
from app.providers.wire.tool_words import past_name, wire_name, wire_names, with_our_names


class OpenAISession:
    """One shared client. Building it blocks for some tens of milliseconds; it opens nothing."""

    def __init__(self, base_url: str) -> None:
        quieten(["openai"])
        self._client = openai.AsyncOpenAI(
            api_key="set-for-each-request",  # given, so that the SDK looks for no key of its own
            organization=None,
            base_url=base_url,
            max_retries=0,  # each attempt is a record of ours
            timeout=TIMEOUT,
            http_client=model_client(base_url),
        )
        _ = self._client.responses  # imports the larger half of the SDK

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def exchange(self, key: str, request: ModelRequest, price: ModelPrice) -> ModelReply:
        """One request, one whole reply, within the request's own deadline; else `ModelError`."""
        names = wire_names(request)
        items = _wire_items(request, names)
        if not items:
            raise model_error(ModelFailure.INVALID_REQUEST)
        reply = await exchanged(
            lambda: self._send(key, request, price, items),
            _sdk_failure,
            request.timeout_seconds,
        )
        return with_our_names(reply, names)

    async def _send(
        self,
        key: str,
        request: ModelRequest,
        price: ModelPrice,
        items: list[ResponseInputItemParam],
    ) -> ModelReply:
        responses = self._client.responses.with_streaming_response
        async with responses.create(
            model=request.model,
            input=items,
            instructions=request.system if request.system.strip() else openai.omit,
            tools=_wire_tools(request) or openai.omit,
            max_output_tokens=min(request.max_output_tokens, price.max_output_tokens),
            store=False,
            stream=True,
            extra_headers={"Authorization": f"Bearer {key}"},
        ) as answer:
            if answer.status_code != httpx2.codes.OK:
                raise model_error(status_failure(answer.status_code))
            # The SDK's typed events are built without validation, so a field may hold anything;
            # the raw ones promise nothing that is not kept.
            lines, final = EventLines(), FinalResponse(price)
            async for piece in answer.iter_bytes():
                for data in lines.take(piece):
                    final.take(data)
        return final.finished()


def _wire_tools(request: ModelRequest) -> list[FunctionToolParam]:
    return [
        {
            "type": "function",
            "name": wire_name(tool.name),
            "description": tool.description,
            "parameters": {**tool.parameters},
            "strict": False,  # the gate holds arguments to the schema
        }
        for tool in request.tools
    ]


def _wire_items(request: ModelRequest, names: Mapping[str, str]) -> list[ResponseInputItemParam]:
    """The conversation as the API wants it; no text is blank.

    Text of every origin but the model's replies is the user's; the system prompt is the operator's
    alone and travels apart.
    """
    items: list[ResponseInputItemParam] = []
    for message in request.messages:
        match message:
            case TextMessage():
                items += _user_items(message.text)
            case ReplyMessage():
                items += _reply_items(message, names)
            case ResultsMessage():
                items += [_result_item(result) for result in message.results]
            case _:
                assert_never(message)
    return items


def _user_items(text: str) -> list[ResponseInputItemParam]:
    part: ResponseInputTextParam = {"type": "input_text", "text": text}
    item: EasyInputMessageParam = {"type": "message", "role": "user", "content": [part]}
    return [item] if text.strip() else []


def _reply_items(message: ReplyMessage, names: Mapping[str, str]) -> list[ResponseInputItemParam]:
    items: list[ResponseInputItemParam] = []
    if message.text.strip():
        said: EasyInputMessageParam = {
            "type": "message",
            "role": "assistant",
            "content": message.text,
        }
        items.append(said)
    for call in message.calls:
        item: ResponseFunctionToolCallParam = {
            "type": "function_call",
            "call_id": call.call_id,
            "name": past_name(call.name, names),
            "arguments": json.dumps(call.arguments, ensure_ascii=False),
        }
        items.append(item)
    return items


def _result_item(result: ToolResult) -> FunctionCallOutput:
    """The API has no mark for a call that failed: the text says so."""
    output = f"The call failed.\n{result.content}" if result.is_error else result.content
    return {"type": "function_call_output", "call_id": result.call_id, "output": output}


def _sdk_failure(error: Exception) -> ModelFailure | None:
    """Which failure an SDK error is, by its class and status alone; None: it is none."""
    match error:
        case openai.APIStatusError():
            return status_failure(error.status_code)
        case openai.APIResponseValidationError():
            return ModelFailure.MALFORMED_REPLY
        case openai.APIConnectionError():
            return transport_failure(error.__cause__)
        case openai.OpenAIError():
            return ModelFailure.SERVER_ERROR
        case _:
            return None
