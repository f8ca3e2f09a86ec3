"""Speaks to a MeshFlow server over HTTP: the key from a file or a prompt, problems as sentences.

The key is never an argument of the command line, never sent in clear to another machine, and never
part of an error. No proxy, no netrc and no redirect: the key goes to the server that was named.
Nothing that a server answers is held without bound, and none of it steers the terminal.

Threat: Unauthorised API access
"""

import getpass
import json
import re
import ssl
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from app.cli.invocation import FAILED, KEY_FILE_NAME, USAGE, CommandError, Invocation
from app.domain.loopback import is_loopback
from app.domain.run import Json, JsonObject

_KEY = re.compile(r"[A-Za-z0-9_-]{1,512}")
_CONNECT_SECONDS = 5.0
# Above the server's heartbeat of 15 s on an event stream, so that a silent line is a dead one.
_READ_SECONDS = 45.0
_MOST_KEY_BYTES = 4096
# Above every answer but a bundle: a run with its whole output, or a page of entries.
_MOST_ANSWER_BYTES = 64 * 1024 * 1024
_MOST_PROBLEM_BYTES = 64 * 1024
_MOST_EVENT_BYTES = 8 * 1024 * 1024
_MOST_SENTENCE_CHARACTERS = 2_000
_TOO_LONG = "the server's answer is longer than any of MeshFlow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One server-sent event. `data` is the ledger entry."""

    seq: int
    kind: str
    data: JsonObject


class ProblemError(CommandError):
    """The server answered with a problem."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence, FAILED)
        self.status = status
        self.code = code


class ApiClient:
    """A session with one server. ProblemError for its problems, CommandError when it is away."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def get(self, path: str) -> JsonObject:
        """The JSON object at a path."""
        return self._object("GET", path, None)

    def post(self, path: str, body: JsonObject) -> JsonObject:
        """The JSON object that a POST answers with."""
        return self._object("POST", path, body)

    def put(self, path: str, body: JsonObject, headers: Mapping[str, str]) -> JsonObject:
        """The JSON object that a PUT answers with."""
        return self._object("PUT", path, body, headers)

    def download(self, path: str, most_bytes: int) -> Iterator[bytes]:
        """The bytes of an answer as they come. CommandError for one that is too long."""
        with self._reaching(), self._client.stream("GET", path) as response:
            if not response.is_success:
                raise _problem(response)
            size = 0
            for part in response.iter_raw():
                size += len(part)
                if size > most_bytes:
                    raise CommandError("the server's answer is larger than a bundle may be")
                yield part

    def events(self, path: str, after_seq: int) -> Iterator[ServerEvent]:
        """Events after a seq (-1: all of them) until the server ends the stream or it is cut."""
        resume = {"Last-Event-ID": str(after_seq)} if after_seq >= 0 else {}
        with self._reaching(), self._client.stream("GET", path, headers=resume) as response:
            if not response.is_success:
                raise _problem(response)
            try:
                yield from parse_events(bounded_lines(response.iter_raw()))
            except httpx2.TransportError:
                return  # the caller looks how the run stands, and follows on from the last seq

    def _object(
        self,
        method: str,
        path: str,
        body: JsonObject | None,
        headers: Mapping[str, str] | None = None,
    ) -> JsonObject:
        sent = self._client.stream(method, path, json=body, headers=headers)
        with self._reaching(), sent as response:
            if not response.is_success:
                raise _problem(response)
            found = _parsed(_read(response, _MOST_ANSWER_BYTES))
        if not isinstance(found, dict):
            raise CommandError("the server's answer is not that of MeshFlow")
        return found

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            url = self._client.base_url
            raise CommandError(
                f"no answer from {url.scheme}://{url.netloc.decode('ascii', 'replace')}: "
                f"{type(error).__name__}"
            ) from None


@contextmanager
def api_client(invocation: Invocation, arguments: Namespace) -> Iterator[ApiClient]:
    """A session as the client commands' shared options describe it."""
    url: str = arguments.url
    _require_safe(url)
    key = read_key(arguments.key_file, invocation.environ)
    with httpx2.Client(
        base_url=url,
        headers={
            "Authorization": f"Bearer {key}",
            "User-Agent": "meshflow-cli",
            "Accept-Encoding": "identity",  # what is unpacked cannot be bounded by what comes
        },
        verify=_trust(arguments.ca_file),
        trust_env=False,
        timeout=httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
    ) as client:
        yield ApiClient(client)


def read_key(key_file: Path | None, environ: Mapping[str, str]) -> str:
    """The key from the file, the file named in the environment, the terminal, or standard input."""
    named = environ.get(KEY_FILE_NAME, "").strip()
    path = key_file or (Path(named) if named else None)
    if path is not None:
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_KEY_BYTES).decode("ascii", "replace")
        except (OSError, ValueError):
            raise CommandError("the key file cannot be read", USAGE) from None
    elif sys.stdin.isatty():
        text = getpass.getpass("API key: ")
    else:
        text = sys.stdin.readline(_MOST_KEY_BYTES)
    key = text.strip()
    if _KEY.fullmatch(key) is None:
        raise CommandError(
            "no API key: use --key-file, MESHFLOW_KEY_FILE or standard input; a key is made of "
            "letters, digits, _ and -",
            USAGE,
        )
    return key


def bounded_lines(parts: Iterator[bytes]) -> Iterator[str]:
    """Lines out of an event stream. CommandError when one line, or one event, has no end."""
    held, size = bytearray(), 0
    for part in parts:
        held += part
        while (end := held.find(b"\n")) >= 0:
            line = bytes(held[:end]).removesuffix(b"\r")
            del held[: end + 1]
            size = size + len(line) if line else 0
            if size > _MOST_EVENT_BYTES:
                break
            yield line.decode("utf-8", "replace")
        if size + len(held) > _MOST_EVENT_BYTES:
            raise CommandError(_TOO_LONG)


def parse_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Server-sent events out of lines; comments and events that are no entry are skipped."""
    kind, seq, data = "", -1, ""
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "event":
                    kind = value
                case "id" if value.isascii() and value.isdecimal():
                    seq = int(value)
                case "data":
                    data += value
                case _:
                    pass
            continue
        entry = _parsed(data)
        if kind and isinstance(entry, dict):
            yield ServerEvent(seq=seq, kind=kind, data=entry)
        kind, data = "", ""


def text_of(found: Mapping[str, Json], *names: str) -> str:
    """The text at a path of names; empty when there is none."""
    value: Json = dict(found)
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def plain(text: str) -> str:
    """Text of a run for the terminal: what could steer the terminal is made visible."""
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else f"\\x{ord(sign):02x}" for sign in text
    )


def _require_safe(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, known = parts.hostname, parts.port != 0
    except ValueError:
        host, known, parts = None, False, urlsplit("")
    if host is None or not known or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise CommandError("--url must be an http or https URL without credentials", USAGE)
    if parts.scheme == "http" and not is_loopback(host):
        raise CommandError("the key is not sent in clear to another machine: use https", USAGE)


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError):
        raise CommandError("the file of --ca-file is not readable PEM", USAGE) from None


def _problem(response: httpx2.Response) -> ProblemError:
    """What the server says is wrong, in one sentence. Its words are for people and hold no key."""
    body = _parsed(_read(response, _MOST_PROBLEM_BYTES))
    found = body if isinstance(body, dict) else {}
    code = text_of(found, "code") or "unknown"
    said = text_of(found, "detail") or text_of(found, "title") or "no reason given"
    request_id = text_of(found, "request_id")
    rules = found.get("rules")
    told = (
        f" by {', '.join(str(rule) for rule in rules)}" if isinstance(rules, list) and rules else ""
    )
    tail = f" (request {request_id})" if request_id else ""
    sentence = f"the server answered {response.status_code} {code}: {said}{told}{tail}"
    return ProblemError(response.status_code, code, plain(sentence)[:_MOST_SENTENCE_CHARACTERS])


def _read(response: httpx2.Response, most_bytes: int) -> bytes:
    """The whole answer, never unpacked. CommandError for one without end."""
    held = bytearray()
    for part in response.iter_raw():
        held += part
        if len(held) > most_bytes:
            raise CommandError(_TOO_LONG)
    return bytes(held)


def _parsed(text: str | bytes) -> Json:
    try:
        found: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found
