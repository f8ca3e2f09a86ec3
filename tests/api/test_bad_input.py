"""Whatever is sent, the answer is a problem, never a failure, and repeats nothing of the input."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx2
import pytest

from tests.api.conftest import MARK, ServerLog, assert_mute
from tests.support.api_matrix import problem_of, raw_exchange
from tests.support.live_server import KEYS, LiveServer

MARKED = MARK.encode()
JSON_TYPE = {"Content-Type": "application/json"}
LARGEST = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """One bad request to POST /v1/runs, and the answer it gets."""

    body: bytes
    status: int = 400
    code: str = "malformed"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_TYPE)
    pointer: str | None = None


def unfit(body: object, pointer: str) -> Bad:
    """Readable JSON that does not fit the schema."""
    text = json.dumps(body)
    return Bad(body=text.encode(), status=422, code="validation", pointer=pointer)


def typed(content_type: str) -> Bad:
    """A good task under a wrong type."""
    return Bad(
        body=b'{"task":"%b"}' % MARKED,
        status=415,
        code="unsupported-media-type",
        headers={"Content-Type": content_type},
    )


def nested(depth: int) -> object:
    value: object = MARK
    for _ in range(depth):
        value = {MARK: value}
    return value


NO_BODY = Bad(body=b"", status=422, code="validation", pointer="/body")
BODIES = {
    "an unknown field": unfit({"task": "x", MARK: 1}, "/body/*"),
    "an unknown field of a part": unfit({"data": [{"content": "x", MARK: 1}]}, "/body/data/0/*"),
    "an unknown budget": unfit({"task": "x", "budget": {MARK: 1}}, "/body/budget/*"),
    "an unknown capability word": unfit(
        {"task": "x", "capabilities": {"tools": [], MARK: 1}}, "/body/capabilities/*"
    ),
    "an unknown field with a slash": unfit({"task": "x", f"a/b~{MARK}": 1}, "/body/*"),
    "a list for an object": unfit([MARK], "/body"),
    "an empty list": unfit([], "/body"),
    "a string for an object": unfit(MARK, "/body"),
    "a number for an object": unfit(7, "/body"),
    "null for an object": unfit(None, "/body"),
    "nothing asked": unfit({}, "/body"),
    "an empty task": unfit({"task": ""}, "/body/task"),
    "a task that is a number": unfit({"task": 773190448261}, "/body/task"),
    "a task that is a list": unfit({"task": [MARK]}, "/body/task"),
    "a task and instructions": unfit({"task": MARK, "instructions": MARK}, "/body"),
    "a task and data": unfit({"task": MARK, "data": [{"content": MARK}]}, "/body"),
    "a tool name with a space": unfit({"task": "x", "tools": [f"{MARK} x"]}, "/body/tools/0"),
    "an agent in capitals": unfit({"task": "x", "agent": MARK}, "/body/agent"),
    "an agent with a newline": unfit({"task": "x", "agent": "assistant\n"}, "/body/agent"),
    "a model with a slash": unfit({"task": "x", "model": f"{MARK}/../x"}, "/body/model"),
    "a budget in words": unfit(
        {"task": "x", "budget": {"max_steps": MARK}}, "/body/budget/max_steps"
    ),
    "a budget as true": unfit(
        {"task": "x", "budget": {"max_steps": True}}, "/body/budget/max_steps"
    ),
    "no step at all": unfit({"task": "x", "budget": {"max_steps": 0}}, "/body/budget/max_steps"),
    "steps below zero": unfit({"task": "x", "budget": {"max_steps": -1}}, "/body/budget/max_steps"),
    "half a step": unfit({"task": "x", "budget": {"max_steps": 1.5}}, "/body/budget/max_steps"),
    "65 parts": unfit({"data": [{"content": MARK}] * 65}, "/body/data"),
    "65 tools": unfit({"task": "x", "tools": ["calculator"] * 65}, "/body/tools"),
    "a source that is too long": unfit(
        {"data": [{"content": "x", "source": MARK * 20}]}, "/body/data/0/source"
    ),
    "a task that is too long": unfit({"task": MARK + "x" * 262_144}, "/body/task"),
    "metadata that is a list": unfit({"task": "x", "metadata": [MARK]}, "/body/metadata"),
    "deep metadata": unfit({"task": "x", "metadata": nested(17)}, "/body/metadata"),
    "a deep schema": unfit({"task": "x", "output_schema": nested(100)}, "/body/output_schema"),
    "a large number in metadata": unfit({"task": "x", "metadata": {MARK: 2**53}}, "/body/metadata"),
    "a huge number in metadata": unfit({"task": "x", "metadata": {MARK: 10**40}}, "/body/metadata"),
    "a number no float can hold": unfit(
        {"task": "x", "metadata": {MARK: 10**400}}, "/body/metadata"
    ),
    "a number no float can hold, in a schema": unfit(
        {"task": "x", "output_schema": {"const": -(10**400)}}, "/body/output_schema"
    ),
    "an escaped NUL": unfit({"task": f"{MARK}\x00"}, "/body/task"),
    "an escaped NUL in metadata": unfit(
        {"task": "x", "metadata": {"a": f"{MARK}\0"}}, "/body/metadata"
    ),
    "an escaped NUL in a name": unfit(
        {"task": "x", "metadata": {f"{MARK}\0": 1}}, "/body/metadata"
    ),
    "a raw NUL": Bad(body=b'{"task":"%b\x00"}' % MARKED),
    "a raw newline": Bad(body=b'{"task":"%b\n"}' % MARKED),
    "only NULs": Bad(body=b"\x00" * 64),
    "a lone high surrogate": Bad(body=b'{"task":"%b\\ud800"}' % MARKED),
    "a lone low surrogate": Bad(body=b'{"task":"\\udc00%b"}' % MARKED),
    "surrogates in the wrong order": Bad(body=b'{"task":"%b\\udc00\\ud800"}' % MARKED),
    "a lone surrogate as a name": Bad(body=b'{"\\ud800%b":1}' % MARKED),
    "a surrogate in UTF-8": Bad(body=b'{"task":"%b\xed\xa0\x80"}' % MARKED),
    "invalid UTF-8": Bad(body=b'{"task":"%b\xff\xfe"}' % MARKED),
    "overlong UTF-8": Bad(body=b'{"task":"%b\xc0\xaf"}' % MARKED),
    "UTF-16": Bad(body=json.dumps({"task": MARK}).encode("utf-16")),
    "a byte order mark": Bad(body=b'\xef\xbb\xbf{"task":"%b"}' % MARKED),
    "10,000 lists": Bad(
        body=b'{"metadata":' + b"[" * 10_000 + b'"%b"' % MARKED + b"]" * 10_000 + b"}"
    ),
    "10,000 objects": Bad(body=b'{"a":' * 10_000 + b'"%b"' % MARKED + b"}" * 10_000),
    "500,000 openings": Bad(body=b"[" * 500_000),
    "a megabyte of digits": Bad(body=b'{"task":' + b"9" * (LARGEST - 20) + b"}"),
    "a megabyte of digits after the point": Bad(
        body=b'{"task":"","metadata":{"a":0.' + b"9" * 900_000 + b"}}",
        status=422,
        code="validation",
        pointer="/body/task",
    ),
    "NaN": Bad(body=b'{"task":"%b","metadata":{"a":NaN}}' % MARKED),
    "Infinity": Bad(body=b'{"task":"%b","metadata":{"a":Infinity}}' % MARKED),
    "-Infinity": Bad(body=b'{"task":"%b","metadata":{"a":-Infinity}}' % MARKED),
    "1e999": Bad(
        body=b'{"task":"%b","metadata":{"a":1e999}}' % MARKED,
        status=422,
        code="validation",
        pointer="/body/metadata",
    ),
    "a name twice": Bad(body=b'{"task":"x","task":"%b"}' % MARKED),
    "a name twice, once escaped": Bad(body=b'{"task":"x","t\\u0061sk":"%b"}' % MARKED),
    "a name twice, deep": Bad(body=b'{"task":"x","metadata":{"a":[{"b":1,"b":"%b"}]}}' % MARKED),
    "JSON that stops": Bad(body=b'{"task":"%b' % MARKED),
    "JSON with more behind it": Bad(body=b'{"task":"%b"} {}' % MARKED),
    "single quotes": Bad(body=b"{'task':'%b'}" % MARKED),
    "a comment": Bad(body=b'{"task":"%b"/* */}' % MARKED),
    "a leading zero": Bad(body=b'{"task":"%b","budget":{"max_steps":01}}' % MARKED),
    "only spaces": Bad(body=b"   "),
    "a gzip body": Bad(
        body=gzip.compress(b'{"task":"%b"}' % MARKED, mtime=0),
        headers={**JSON_TYPE, "Content-Encoding": "gzip"},
    ),
    "no body": NO_BODY,
    "no body and no type": Bad(
        body=b"", status=422, code="validation", headers={}, pointer="/body"
    ),
    "no type": Bad(
        body=b'{"task":"%b"}' % MARKED, status=415, code="unsupported-media-type", headers={}
    ),
    "a form": typed("application/x-www-form-urlencoded"),
    "text": typed("text/plain"),
    "text/json": typed("text/json"),
    "JSON lines": typed("application/x-ndjson"),
    "a type with more behind it": typed(f"application/json{MARK}"),
    "two types": typed("application/json, text/plain"),
    "a multipart form": typed(f"multipart/form-data; boundary={MARK}"),
    "one byte too many": Bad(
        body=b'{"task":"' + b"x" * (LARGEST - 10) + b'"}', status=413, code="too-large"
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_mute_problem(
    name: str, acme: httpx2.Client, server_log: ServerLog
) -> None:
    bad = BODIES[name]
    response = acme.post("/v1/runs", content=bad.body, headers=bad.headers)
    problem = problem_of(response, bad.status, bad.code)
    assert_mute(response, server_log)
    pointers = [error["pointer"] for error in problem["errors"]]
    assert (bad.pointer in pointers) if bad.pointer is not None else pointers == []
    assert all(set(error) == {"pointer", "rule"} for error in problem["errors"])


def test_at_most_32_places_are_told(acme: httpx2.Client) -> None:
    body = {f"{MARK}{number}": 1 for number in range(100)}
    problem = problem_of(acme.post("/v1/runs", json=body), 422, "validation")
    assert len(problem["errors"]) == 32


def test_the_largest_body_is_read(acme: httpx2.Client) -> None:
    body = b'{"task":"' + b"x" * (LARGEST - 11) + b'"}'
    assert len(body) == LARGEST
    problem = problem_of(acme.post("/v1/runs", content=body, headers=JSON_TYPE), 422, "validation")
    assert problem["errors"] == [{"pointer": "/body/task", "rule": "string_too_long"}]


def _head(*lines: str) -> bytes:
    first = ("POST /v1/runs HTTP/1.1", "Host: x", f"X-API-Key: {KEYS['acme']}")
    text = "\r\n".join((*first, "Content-Type: application/json", *lines, "", ""))
    return text.encode("latin-1")


def test_a_length_over_the_limit_is_refused_unread(live: LiveServer) -> None:
    for length in (str(LARGEST + 1), "999999999999"):
        answer = raw_exchange(live.url, _head(f"Content-Length: {length}"))
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "too-large")


def test_a_chunked_body_over_the_limit_is_refused_before_its_end(live: LiveServer) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    body = chunk * (LARGEST // 0x10000 + 1)  # and no last chunk
    answer = raw_exchange(live.url, _head("Transfer-Encoding: chunked") + body)
    assert (answer.status, json.loads(answer.body)["code"]) == (413, "too-large")


def test_chunks_within_the_limit_are_one_body(live: LiveServer) -> None:
    chunks = b'8\r\n{"task":\r\n6\r\n"1+1"}\r\n0\r\n\r\n'
    answer = raw_exchange(live.url, _head("Transfer-Encoding: chunked") + chunks)
    assert answer.status == 202


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: -1",),
        ("Content-Length: 1e3",),
        ("Content-Length: " + "9" * 40,),
        ("Content-Length: 2", "Content-Length: 3"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
    ],
)
def test_a_contradictory_length_never_reaches_a_route(
    lines: tuple[str, ...], live: LiveServer
) -> None:
    answer = raw_exchange(live.url, _head(*lines) + b"0\r\n\r\n{}")
    assert answer.status in {400, 413, 422}
