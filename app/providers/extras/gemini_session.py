"""The one open client of the Gemini API: sends a request, reads its stream, names its failures.

The key travels in a header, never in an address. Nothing that the provider says about a failure
leaves here: it may quote the request or the key.

Threat: Supply chain attacks
"""

import warnings
from collections.abc import Mapping
from typing import assert_never

import httpx2
from google import genai
from google.genai import errors, types

from app.domain.step import (
    Message,
    ModelReply,
    ModelRequest,
    ReplyMessage,
    ResultsMessage,
    TextMessage,
    ToolResult,
)
from app.providers.extras.gemini_stream import CandidateAssembler, is_made_id
from app.providers.prices import ModelPrice
from app.providers.provider import ModelFailure, model_error
from app.providers.wire.exchange import exchanged
from app.providers.wire.model_http import (
    model_client,
    quieten,
    status_failure,
)
from app.providers.wire.tool_words import past_name, turns, wire_name, wire_names, with_our_names

# From Gemini 3 on the API wants back what it signed of the thoughts behind a call. Records have no
# place for that, and this is the value that it documents for a history without.
_NO_SIGNATURE = b"skip_thought_signature_validator"
_API_VERSION = "v1beta"


class GeminiSession:
    """One shared client. Building it blocks for some tens of milliseconds; it opens nothing."""

    def __init__(self, base_url: str) -> None:
        quieten(["google_genai", "google.genai"])
        # The SDK warns of words that it does not know, and quotes them: they are the provider's.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"google\.genai\.")
        self._async_http = model_client()
        self._blocking_http = httpx2.Client(follow_redirects=False)  # given, never used
        self._client = genai.Client(
            vertexai=False,
            api_key="set-for-each-request",
            http_options=types.HttpOptions(
                base_url=base_url,
                api_version=_API_VERSION,
                httpx_client=self._blocking_http,
                httpx_async_client=self._async_http,
            ),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._async_http.aclose()
        self._blocking_http.close()

    async def exchange(self, key: str, request: ModelRequest, price: ModelPrice) -> ModelReply:
        """One request, one whole reply, within the request's own deadline; else `ModelError`."""
        names = wire_names(request)
        contents = _wire_contents(request, names)
        if not contents:
            raise model_error(ModelFailure.INVALID_REQUEST)
        reply = await exchanged(
            lambda: self._send(key, request, price, contents),
            _sdk_failure,
            request.timeout_seconds,
        )
        return with_our_names(reply, names)

    async def _send(
        self, key: str, request: ModelRequest, price: ModelPrice, contents: list[types.Content]
    ) -> ModelReply:
        stream = await self._client.aio.models.generate_content_stream(
            model=request.model,
            contents=list[types.ContentUnion](contents),
            config=types.GenerateContentConfig(
                system_instruction=request.system if request.system.strip() else None,
                max_output_tokens=min(request.max_output_tokens, price.max_output_tokens),
                tools=_wire_tools(request) or None,
                automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                automatic_continuation=False,  # one request is one record
                http_options=types.HttpOptions(headers={"x-goog-api-key": key}),
            ),
        )
        turn = sum(isinstance(message, ReplyMessage) for message in request.messages)
        assembler = CandidateAssembler(price, turn=turn)
        async for chunk in stream:
            assembler.take(chunk)
        return assembler.finished()


def _wire_tools(request: ModelRequest) -> types.ToolListUnion:
    declarations = [
        types.FunctionDeclaration(
            name=wire_name(tool.name),
            description=tool.description,
            parameters_json_schema={**tool.parameters},
        )
        for tool in request.tools
    ]
    return [types.Tool(function_declarations=declarations)] if declarations else []


def _wire_contents(request: ModelRequest, names: Mapping[str, str]) -> list[types.Content]:
    """The conversation as the API wants it: roles alternate, no part is blank."""

    def parts_of(message: Message) -> list[types.Part]:
        match message:
            case TextMessage():
                return _text_parts(message.text)
            case ReplyMessage():
                return _reply_parts(message, names)
            case ResultsMessage():
                return [_result_part(result, names) for result in message.results]
            case _:
                assert_never(message)

    return [
        types.Content(role="model" if from_model else "user", parts=parts)
        for from_model, parts in turns(request.messages, parts_of)
    ]


def _text_parts(text: str) -> list[types.Part]:
    return [types.Part(text=text)] if text.strip() else []


def _reply_parts(message: ReplyMessage, names: Mapping[str, str]) -> list[types.Part]:
    parts = _text_parts(message.text)
    for number, call in enumerate(message.calls):
        parts.append(
            types.Part(
                function_call=types.FunctionCall(
                    id=_wire_id(call.call_id),
                    name=past_name(call.name, names),
                    args={**call.arguments},
                ),
                # Of calls made together only the first is signed.
                thought_signature=_NO_SIGNATURE if number == 0 else None,
            )
        )
    return parts


def _result_part(result: ToolResult, names: Mapping[str, str]) -> types.Part:
    told = "error" if result.is_error else "output"  # the words that the API knows
    return types.Part(
        function_response=types.FunctionResponse(
            id=_wire_id(result.call_id),
            name=past_name(result.name, names),
            response={told: result.content},
        )
    )


def _wire_id(call_id: str) -> str | None:
    """The API's own id of a call; None where it gave none and ours stands in its place."""
    return None if is_made_id(call_id) else call_id


def _sdk_failure(error: Exception) -> ModelFailure:
    """Which failure an SDK error is, by its status alone.

    The SDK reads replies with code that may fail in any way.
    """
    if not isinstance(error, errors.APIError):
        return ModelFailure.MALFORMED_REPLY
    code: object = error.code  # of an error in mid-stream, whatever the provider wrote
    if not isinstance(code, int) or isinstance(code, bool):
        return ModelFailure.SERVER_ERROR
    return status_failure(code)
