"""Asks one witness for its cosignature of a checkpoint, and for the newest it has cosigned.

C2SP tlog-witness, the client's side. An answer is bounded in bytes and time, and counts only by
what it proves: a cosignature by the witness's configured key over this very note. Nothing in an
error comes from the witness but a status and a size.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import httpx2

from app.domain.errors import (
    ConfigurationError,
    WitnessAheadError,
    WitnessRefusedError,
    WitnessUnavailableError,
)
from app.domain.loopback import is_loopback
from app.transparency.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    parse_number,
    verify_cosignature,
)
from app.transparency.note import (
    COSIGNATURE,
    MAX_SIGNATURES,
    Note,
    NoteError,
    VerifierKey,
    cosigned_at,
    encode_base64,
    format_signature,
    parse_note,
    parse_signature_line,
)

MOST_ANSWER_BYTES = 128 * 1024
EXCHANGE_SECONDS = 10.0
MOST_PROOF_HASHES = 63
_SIZE_TYPE = "text/x.tlog.size"

ProofFrom = Callable[[int], Awaitable[Sequence[bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    content_type: str
    body: bytes


class WitnessClient:
    """A session with one witness. `http` is the caller's, who closes it and sets what it trusts."""

    def __init__(
        self, url: str, vkey: str, http: httpx2.AsyncClient, seconds: float = EXCHANGE_SECONDS
    ) -> None:
        """ConfigurationError for a URL that is not https or loopback, or a key of another type.

        `seconds` bounds each exchange from its first byte to its last.
        """
        self._url = _safe(url)
        self._key = _witness_key(vkey)
        self._http = http
        self._seconds = seconds
        self._cosigned: dict[str, int] = {}

    async def add_checkpoint(self, note: bytes, size: int, proof_from: ProofFrom) -> str:
        """The witness's verified cosignature over the checkpoint `note`, which has `size` leaves.

        `proof_from` gives the consistency proof from a size to this one; it is asked for sizes that
        the witness names. The line ends in its newline. WitnessUnavailableError: try again later.
        WitnessAheadError and WitnessRefusedError: no later try of this note will do. ValueError
        when `note` is no checkpoint of this size.
        """
        text, checkpoint = _opened(note)
        if checkpoint.size != size:
            raise ValueError("the note is of another size")
        old = self._cosigned.get(checkpoint.origin, 0)
        old = old if old <= size else 0  # an old note: the witness will say where it is
        answer = await self._submit(old, note, proof_from)
        told = _told_size(answer)
        if told is not None and told != old:
            if told > size:
                raise WitnessAheadError(told)
            old = told
            answer = await self._submit(old, note, proof_from)
        line = self._judged(answer, text, old=old, size=size)
        self._cosigned = {checkpoint.origin: size}
        return line

    async def latest(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint of an origin that the witness cosigned; None if it has none.

        It is the witness's signature that proves it, not the log's. WitnessRefusedError when the
        witness does not watch this log or, being another program, cannot say.
        """
        answer = await self._exchange("GET", f"/checkpoint?origin={quote(origin, safe='')}", None)
        match answer.status:
            case HTTPStatus.NO_CONTENT:
                return None
            case HTTPStatus.OK:
                pass
            case HTTPStatus.NOT_FOUND | HTTPStatus.BAD_REQUEST | HTTPStatus.METHOD_NOT_ALLOWED:
                raise WitnessRefusedError(answer.status, is_fork=False)
            case _:
                raise WitnessUnavailableError(f"the witness answered with status {answer.status}")
        try:
            note = parse_note(answer.body)
            verify_cosignature(note, self._key)
            found = parse_checkpoint(note.text)
        except NoteError:
            found = None
        if found is None or found.origin != origin:
            raise WitnessUnavailableError("the witness's newest note is not one it cosigned")
        return found

    async def _submit(self, old: int, note: bytes, proof_from: ProofFrom) -> _Answer:
        proof = await proof_from(old) if old else ()
        if len(proof) > MOST_PROOF_HASHES:
            raise ValueError("a consistency proof of more than 63 hashes")
        lines = "".join(f"{encode_base64(found)}\n" for found in proof)
        body = f"old {old}\n{lines}\n".encode() + note
        return await self._exchange("POST", "/add-checkpoint", body)

    def _judged(self, answer: _Answer, text: str, *, old: int, size: int) -> str:
        """The cosignature in an answer, or why there is none."""
        match answer.status:
            case HTTPStatus.OK:
                return self._cosignature(answer.body, text)
            case HTTPStatus.CONFLICT:
                told = _told_size(answer)
                if told is not None and told > size:
                    raise WitnessAheadError(told)
                if told in (None, old) and old == size:
                    raise WitnessRefusedError(answer.status, is_fork=True)
                # Somebody else's submission came between; or the answer makes no sense.
                raise WitnessUnavailableError("the witness is at another size again")
            case HTTPStatus.UNPROCESSABLE_ENTITY:
                raise WitnessRefusedError(answer.status, is_fork=True)
            case HTTPStatus.BAD_REQUEST | HTTPStatus.FORBIDDEN | HTTPStatus.NOT_FOUND:
                raise WitnessRefusedError(answer.status, is_fork=False)
            case _:
                raise WitnessUnavailableError(f"the witness answered with status {answer.status}")

    def _cosignature(self, body: bytes, text: str) -> str:
        """This witness's line of the answer; those of unknown keys are passed over."""
        try:
            lines = body.decode("utf-8").splitlines(keepends=True)
            found = tuple(parse_signature_line(line) for line in lines[:MAX_SIGNATURES])
            own = [s for s in found if (s.name, s.key_id) == (self._key.name, self._key.key_id)]
            verify_cosignature(Note(text=text, signatures=tuple(own)), self._key)
        except (NoteError, UnicodeDecodeError):
            raise WitnessUnavailableError(
                "the witness's answer holds no cosignature of this note by its key"
            ) from None
        return format_signature(max(own, key=cosigned_at))

    async def _exchange(self, method: str, path: str, content: bytes | None) -> _Answer:
        """One bounded exchange. WitnessUnavailableError for anything that is no whole answer."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "meshflow"}
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._http.stream(
                    method,
                    self._url + path,
                    content=content,
                    headers=headers,
                    follow_redirects=False,
                    timeout=self._seconds,
                ) as answer,
            ):
                async for chunk in answer.aiter_raw():  # never unpacked
                    body += chunk
                    if len(body) > MOST_ANSWER_BYTES:
                        raise WitnessUnavailableError("the witness's answer is too long")
                return _Answer(
                    status=answer.status_code,
                    content_type=answer.headers.get("content-type", ""),
                    body=bytes(body),
                )
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            reason = type(error).__name__
        raise WitnessUnavailableError(f"no answer from the witness: {reason}")


def _told_size(answer: _Answer) -> int | None:
    """The size that a conflict names."""
    if answer.status != HTTPStatus.CONFLICT or answer.content_type != _SIZE_TYPE:
        return None
    try:
        return parse_number(answer.body.decode("ascii").removesuffix("\n"))
    except (NoteError, UnicodeDecodeError):
        return None


def _opened(note: bytes) -> tuple[str, Checkpoint]:
    found = parse_note(note)
    return found.text, parse_checkpoint(found.text)


def _witness_key(vkey: str) -> VerifierKey:
    try:
        key = VerifierKey.parse(vkey)
    except NoteError:
        raise ConfigurationError("a witness's key is not a verifier key") from None
    if key.algorithm != COSIGNATURE:
        raise ConfigurationError("a witness's key must be of signature type 0x04")
    return key


def _safe(url: str) -> str:
    """The submission prefix without a last slash."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("a witness's URL is malformed") from None
    if host is None or port == 0 or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError("a witness's URL has a host, and no credentials or query")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigurationError("a witness is reached by https, or on this machine's loopback")
    return url.rstrip("/")
