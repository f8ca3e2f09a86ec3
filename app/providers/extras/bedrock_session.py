"""The one open client of Bedrock's Converse API: sends a request, reads its stream, names failures.

The SDK finds credentials and the endpoint, checks, serialises and signs a request; it can send one
only by blocking a thread for as long as the answer takes. So its event before sending takes the
signed request, and the service's own HTTP client sends that: a deadline or a cancelled run closes
the connection at once, and no call ever holds a thread. Threads only sign, at most four.

Threat: Supply chain attacks
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import boto3
import botocore.awsrequest
import botocore.client
import botocore.config
import botocore.exceptions
import httpx2
from botocore.eventstream import EventStreamBuffer

from app.domain.step import ModelReply, ModelRequest
from app.providers.extras.bedrock_stream import ConverseAssembler
from app.providers.extras.bedrock_words import converse_arguments
from app.providers.prices import ModelPrice
from app.providers.provider import ModelFailure, model_error
from app.providers.wire.exchange import exchanged
from app.providers.wire.model_http import (
    model_client,
    quieten,
    status_failure,
)
from app.providers.wire.reply_json import malformed
from app.providers.wire.tool_words import wire_names, with_our_names

_MOST_SIGNING_THREADS = 4
_LENGTH_BYTES = 4
_MOST_MESSAGE_BYTES = 1024 * 1024  # a message is a piece of a reply
_MODEL_ERROR = 424  # the model behind the API failed


class BedrockSession:
    """One shared client. Building it opens nothing; the SDK's is built when it first signs."""

    def __init__(self, region: str, base_url: str | None) -> None:
        quieten(["boto3", "botocore", "urllib3"])
        self._http = model_client()
        self._signers = ThreadPoolExecutor(_MOST_SIGNING_THREADS, thread_name_prefix="bedrock-sign")
        self._signer = _Signer(region, base_url)

    async def close(self) -> None:
        """Close every connection. A thread that still signs ends by itself."""
        await self._http.aclose()
        self._signers.shutdown(wait=False, cancel_futures=True)

    async def exchange(self, _key: str, request: ModelRequest, price: ModelPrice) -> ModelReply:
        """One request, one whole reply, within the request's own deadline; else `ModelError`."""
        names = wire_names(request)
        arguments = converse_arguments(request, price, names)
        if arguments is None:
            raise model_error(ModelFailure.INVALID_REQUEST)
        reply = await exchanged(
            lambda: self._send(arguments, price),
            _sdk_failure,
            request.timeout_seconds,
        )
        return with_our_names(reply, names)

    async def _send(self, arguments: Mapping[str, object], price: ModelPrice) -> ModelReply:
        loop = asyncio.get_running_loop()
        signed = await loop.run_in_executor(self._signers, self._signer.signed, arguments)
        async with self._http.stream(
            signed.method, signed.url, headers=_headers(signed), content=signed.body
        ) as answer:
            if answer.status_code == _MODEL_ERROR:
                raise model_error(ModelFailure.SERVER_ERROR)
            if answer.status_code != httpx2.codes.OK:
                raise model_error(status_failure(answer.status_code))
            assembler, frames = ConverseAssembler(price), _Frames()
            async for piece in answer.aiter_bytes():
                for kind, name, payload in frames.take(piece):
                    assembler.take(kind, name, payload)
        return assembler.finished()


class _Signer:
    """The SDK's client, which signs and never sends. Its methods block; they run in threads."""

    def __init__(self, region: str, base_url: str | None) -> None:
        self._taken = threading.local()
        self._building = threading.Lock()
        self._region = region
        self._base_url = base_url
        self._built: botocore.client.BaseClient | None = None

    def signed(self, arguments: Mapping[str, object]) -> botocore.awsrequest.AWSPreparedRequest:
        """The request as it goes on the wire."""
        self._client().converse_stream(**arguments)["stream"].close()
        request: botocore.awsrequest.AWSPreparedRequest = self._taken.request
        del self._taken.request
        return request

    def _client(self) -> botocore.client.BaseClient:
        """Built here and not with the session: it fetches credentials, which may hang."""
        with self._building:
            if self._built is None:
                built = boto3.session.Session(region_name=self._region).client(
                    "bedrock-runtime",
                    endpoint_url=self._base_url,
                    config=botocore.config.Config(
                        retries={"total_max_attempts": 1},  # each attempt is a record of ours
                        # The environment cannot redirect prompts.
                        ignore_configured_endpoint_urls=True,
                    ),
                )
                built.meta.events.register("before-send.bedrock-runtime", self._take)
                self._built = built
            return self._built

    def _take(
        self, request: botocore.awsrequest.AWSPreparedRequest, **_: object
    ) -> botocore.awsrequest.AWSResponse:
        """What the SDK calls before it sends, in the thread that signs: so it does not send."""
        self._taken.request = request
        return botocore.awsrequest.AWSResponse(request.url, int(httpx2.codes.OK), {}, _Nothing())


def _sdk_failure(error: Exception) -> ModelFailure | None:
    """Which failure an SDK error is; None: it is none. Nothing was sent: there was no signature."""
    match error:
        case botocore.exceptions.ParamValidationError():
            return ModelFailure.INVALID_REQUEST
        case botocore.exceptions.BotoCoreError() | botocore.exceptions.ClientError():
            return ModelFailure.AUTHENTICATION  # there are no credentials
        case _:
            return None


class _Nothing:
    """The empty answer that the SDK reads in the place of the real one."""

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        """No bytes."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


def _headers(signed: botocore.awsrequest.AWSPreparedRequest) -> list[tuple[str, str]]:
    return [
        (name, value.decode() if isinstance(value, bytes) else str(value))
        for name, value in signed.headers.items()
    ]


class _Frames:
    """Cuts the stream into messages, and has the SDK read each: kind, name and payload.

    The SDK's own buffer would copy what it holds for every piece that comes.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def take(self, piece: bytes) -> Iterator[tuple[str, str, str]]:
        """Every message that is whole now. Raises `ModelError` for what is none."""
        self._rest += piece
        while len(self._rest) >= _LENGTH_BYTES:
            size = int.from_bytes(self._rest[:_LENGTH_BYTES])
            if size > _MOST_MESSAGE_BYTES:
                malformed()
            if len(self._rest) < size:
                return
            frame = bytes(self._rest[:size])
            del self._rest[:size]
            yield _message(frame)


def _message(frame: bytes) -> tuple[str, str, str]:
    buffer = EventStreamBuffer()
    try:
        buffer.add_data(frame)
        message = next(buffer)  # its checksums are held to
        headers = {str(name): str(value) for name, value in message.headers.items()}
        payload: str = message.payload.decode()
    except Exception:  # noqa: BLE001 - the SDK reads frames with code that may fail in any way
        raise model_error(ModelFailure.MALFORMED_REPLY) from None
    name = headers.get(":event-type") or headers.get(":exception-type")
    return headers.get(":message-type", ""), name or headers.get(":error-code", ""), payload
