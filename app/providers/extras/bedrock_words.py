"""What the Converse API is asked: a conversation, its tools and limits in the API's own words."""

from collections.abc import Mapping
from typing import assert_never

from app.domain.run import JsonObject
from app.domain.step import (
    Message,
    ModelRequest,
    ReplyMessage,
    ResultsMessage,
    TextMessage,
    ToolResult,
)
from app.providers.prices import ModelPrice
from app.providers.wire.tool_words import past_name, turns, wire_name

_BLANK = "(nothing)"  # the API refuses a blank text, and a call must have a result


def converse_arguments(
    request: ModelRequest, price: ModelPrice, names: Mapping[str, str]
) -> JsonObject | None:
    """The arguments of the SDK's call; None for a conversation that says nothing."""

    def blocks_of(message: Message) -> list[JsonObject]:
        match message:
            case TextMessage():
                return _text_blocks(message.text)
            case ReplyMessage():
                return _reply_blocks(message, names)
            case ResultsMessage():
                return [_result_block(result) for result in message.results]
            case _:
                assert_never(message)

    found = turns(request.messages, blocks_of)
    if not found:
        return None
    arguments: JsonObject = {
        "modelId": request.model,
        "messages": [
            {"role": "assistant" if from_model else "user", "content": [*blocks]}
            for from_model, blocks in found
        ],
        "inferenceConfig": {
            "maxTokens": min(request.max_output_tokens, price.max_output_tokens),
        },
    }
    if request.system.strip():
        arguments["system"] = [{"text": request.system}]
    if request.tools:
        arguments["toolConfig"] = {
            "tools": [
                {
                    "toolSpec": {
                        "name": wire_name(tool.name),
                        "description": tool.description,
                        "inputSchema": {"json": {**tool.parameters}},
                    }
                }
                for tool in request.tools
            ]
        }
    return arguments


def _text_blocks(text: str) -> list[JsonObject]:
    return [{"text": text}] if text.strip() else []


def _reply_blocks(message: ReplyMessage, names: Mapping[str, str]) -> list[JsonObject]:
    blocks = _text_blocks(message.text)
    for call in message.calls:
        block: JsonObject = {
            "toolUse": {
                "toolUseId": call.call_id,
                "name": past_name(call.name, names),
                "input": {**call.arguments},
            }
        }
        blocks.append(block)
    return blocks


def _result_block(result: ToolResult) -> JsonObject:
    return {
        "toolResult": {
            "toolUseId": result.call_id,
            "content": [{"text": result.content if result.content.strip() else _BLANK}],
            "status": "error" if result.is_error else "success",
        }
    }
