"""The HTTP side of a witness: C2SP tlog-witness `POST /add-checkpoint`, and `GET /checkpoint`.

A plain ASGI application. Bodies are bounded in bytes and in time. Whoever reaches the port may ask;
only a note that a watched log signed costs more than reading it.

Threat: Ledger tampering
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import assert_never
from urllib.parse import parse_qsl

from app.transparency.checkpoint import cosign, parse_checkpoint
from app.transparency.note import Note, NoteError, SignerKey, format_note, parse_note, verified
from app.witness.known_logs import KnownLogs
from app.witness.submission import MOST_BODY_BYTES, parse_submission
from app.witness.witness_state import (
    Candidate,
    Cosigned,
    Forked,
    Stale,
    Unproven,
    WitnessState,
)

_log = logging.getLogger("meshflow.witness")
BODY_SECONDS = 10.0
_PLAIN = "text/plain; charset=utf-8"
_SIZE = "text/x.tlog.size"  # as the specification writes it

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response. `close`: what is left of the request is not wanted."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = _PLAIN
    close: bool = False


def _refused(status: HTTPStatus, sentence: str, *, close: bool = False) -> Answer:
    return Answer(status=status, body=f"{sentence}\n".encode(), close=close)


class WitnessApp:
    """Answers for one witness key. All work on the state is done by one thread, one at a time."""

    def __init__(
        self,
        signer: SignerKey,
        logs: KnownLogs,
        state: WitnessState,
        clock: Callable[[], int],
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._signer = signer
        self._logs = logs
        self._state = state
        self._clock = clock
        self._body_seconds = body_seconds
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="witness")

    def turn_unready(self) -> None:
        """Nothing to do: there is no readiness to take back."""

    def end_streams(self) -> None:
        """Nothing to do: every answer ends by itself."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            self._worker.shutdown()
            return
        answer = await self._answer(scope, receive)
        headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
        if answer.status is not HTTPStatus.NO_CONTENT:
            headers += [
                (b"content-type", answer.content_type.encode()),
                (b"content-length", str(len(answer.body)).encode()),
            ]
        if answer.close:
            headers.append((b"connection", b"close"))
        await send(
            {"type": "http.response.start", "status": answer.status.value, "headers": headers}
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        match scope["path"], scope["method"]:
            case "/add-checkpoint", "POST":
                body = await _body(receive, self._body_seconds)
                return body if isinstance(body, Answer) else await self._worked(self._add, body)
            case "/checkpoint", "GET":
                query = scope["query_string"]
                return await self._worked(self._newest, query if isinstance(query, bytes) else b"")
            case (("/add-checkpoint" | "/checkpoint"), _):
                return _refused(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed", close=True)
            case _:
                return _refused(HTTPStatus.NOT_FOUND, "not found", close=True)

    async def _worked(self, work: Callable[[bytes], Answer], given: bytes) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, given)
        except sqlite3.Error as error:
            _log.error("the state could not be used: %s", type(error).__name__)
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "the state cannot be used", close=True)

    def _add(self, body: bytes) -> Answer:
        """The checks of tlog-witness, in its order."""
        asked = parse_submission(body)
        if asked is None:
            return _refused(HTTPStatus.BAD_REQUEST, "not an add-checkpoint request")
        try:
            note = parse_note(asked.note)
            checkpoint = parse_checkpoint(note.text)
        except NoteError:
            return _refused(HTTPStatus.BAD_REQUEST, "not a checkpoint")
        keys = self._logs.keys_of(checkpoint.origin)
        if not keys:
            return _refused(HTTPStatus.NOT_FOUND, "this log is not watched here")
        try:
            signers = {(key.name, key.key_id) for key in verified(note, keys)}
        except NoteError:
            return _refused(HTTPStatus.FORBIDDEN, "no good signature of this log")
        if asked.old_size > checkpoint.size:
            return _refused(HTTPStatus.BAD_REQUEST, "the old size is above the new one")
        good = dict.fromkeys(s for s in note.signatures if (s.name, s.key_id) in signers)
        kept = format_note(Note(text=note.text, signatures=tuple(good)))
        candidate = Candidate(
            checkpoint=checkpoint, note=kept, old_size=asked.old_size, proof=asked.proof
        )
        return self._decided(candidate, note.text)

    def _decided(self, candidate: Candidate, text: str) -> Answer:
        now = self._clock()
        outcome = self._state.decide(
            candidate, lambda: cosign(text, self._signer, now).encode(), now
        )
        told = (candidate.checkpoint.origin, candidate.checkpoint.size)
        match outcome:
            case Cosigned(line=line):
                return Answer(status=HTTPStatus.OK, body=line)
            case Stale(size=size):
                body = f"{size}\n".encode()
                return Answer(status=HTTPStatus.CONFLICT, body=body, content_type=_SIZE)
            case Forked():
                _log.error("FORK: %s signed a second root of size %d; see the evidence", *told)
                return _refused(HTTPStatus.CONFLICT, "another root of this size is cosigned")
            case Unproven():
                _log.error("%s at size %d is not proven to go on from what is cosigned", *told)
                return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, "the proof does not hold")
            case _:
                assert_never(outcome)

    def _newest(self, query: bytes) -> Answer:
        """The newest cosigned note of one origin; 204 while there is none, 404 if not watched."""
        try:
            ((name, origin),) = parse_qsl(
                query.decode("ascii"), strict_parsing=True, errors="strict", max_num_fields=1
            )
        except ValueError:
            name, origin = "", ""
        if name != "origin":
            return _refused(HTTPStatus.BAD_REQUEST, "one parameter is wanted: origin")
        if not self._logs.keys_of(origin):
            return _refused(HTTPStatus.NOT_FOUND, "this log is not watched here")
        note = self._state.latest(origin)
        if note is None:
            return Answer(status=HTTPStatus.NO_CONTENT)
        return Answer(status=HTTPStatus.OK, body=note)


async def _body(receive: Receive, seconds: float) -> bytes | Answer:
    """The whole body, or the refusal of one that is too long or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                chunk = message.get("body", b"")
                if isinstance(chunk, bytes):
                    body += chunk
                if len(body) > MOST_BODY_BYTES:
                    return _refused(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long a request", close=True
                    )
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return bytes(body)  # of a client that left, half a request: refused as such
    except TimeoutError:
        return _refused(HTTPStatus.REQUEST_TIMEOUT, "too slow a request", close=True)


async def _live(receive: Receive, send: Send) -> None:
    """The server's start and end; nothing is opened or closed in between."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
