"""docs/problems.md lists exactly the problems there are, and every error has one."""

import inspect
import time
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.api import problems
from app.api.auth import Doorkeeper
from app.api.middleware import Guard
from app.domain import errors
from app.domain.errors import (
    ApprovalClosedError,
    ApprovalRefusedError,
    ChainBreak,
    ConditionError,
    ConditionRefusedError,
    ConfigurationError,
    ConfinementError,
    EgressError,
    ErasureRefusedError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidSubmissionError,
    KeyBusyError,
    KeyErasedError,
    KeyMalformedError,
    KeyRetiredError,
    KeyReusedError,
    KeyStoreError,
    KeyTakenError,
    LedgerBrokenError,
    LedgerError,
    LedgerUnavailableError,
    MeshFlowError,
    ModelError,
    NotFoundError,
    NotSequencedError,
    OverloadedError,
    PolicyDeniedError,
    PolicyRefusedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    RecordFormError,
    RefusedPart,
    RotationRefusedError,
    RunParkedError,
    SecondPersonError,
    StaleEpochError,
    StaleTermError,
    TenantBusyError,
    ToolError,
    ToolsBusyError,
    UnreadableShellError,
    WitnessAheadError,
    WitnessError,
    WitnessRefusedError,
    WitnessUnavailableError,
    WriterRetiredError,
)
from app.domain.receipt import RecordReceipt
from app.keys.key_ring import KeySource
from app.keys.request_rates import RequestRates
from tests.support.api_matrix import problem_of

PAGE = Path(__file__).parents[2] / "docs" / "problems.md"
RECEIPT = RecordReceipt(
    log=bytes(16), run=bytes(16), seq=0, rc=bytes(32), chain=bytes(32), share=None
)
RAISED: dict[str, tuple[Exception, int, str]] = {
    "NotFoundError": (NotFoundError("no such run"), 404, "not-found"),
    "ForbiddenError": (ForbiddenError("run"), 403, "forbidden"),
    "InvalidSubmissionError": (InvalidSubmissionError("/a", "b"), 422, "invalid-submission"),
    "PolicyDeniedError": (
        PolicyDeniedError("run_x", ("r1.schema",), "c", RECEIPT),
        403,
        "policy-denied",
    ),
    "PolicyRefusedError": (
        PolicyRefusedError([RefusedPart(pointer="/rules", reason="no such rule")]),
        422,
        "policy-refused",
    ),
    "SecondPersonError": (SecondPersonError(), 403, "second-person"),
    "ApprovalRefusedError": (ApprovalRefusedError("c", ("r2.x",)), 403, "approval-refused"),
    "ApprovalClosedError": (ApprovalClosedError("denied"), 409, "approval-closed"),
    "PreconditionFailedError": (PreconditionFailedError(), 412, "precondition-failed"),
    "PreconditionRequiredError": (PreconditionRequiredError(), 428, "precondition-required"),
    "LedgerError": (LedgerError("refused"), 503, "ledger-refused"),
    "LedgerUnavailableError": (LedgerUnavailableError("gone"), 503, "ledger-unavailable"),
    "LedgerBrokenError": (
        LedgerBrokenError(ChainBreak(seq=3, reason="chain")),
        409,
        "ledger-broken",
    ),
    "ErasureRefusedError": (ErasureRefusedError("hold"), 503, "ledger-refused"),
    "KeyRetiredError": (KeyRetiredError("retired"), 503, "ledger-refused"),
    "WriterRetiredError": (WriterRetiredError("retired"), 503, "ledger-refused"),
    "NotSequencedError": (NotSequencedError(), 409, "not-sequenced"),
    "StaleEpochError": (StaleEpochError("taken"), 409, "run-taken-over"),
    "IllegalTransitionError": (IllegalTransitionError("over"), 409, "illegal-transition"),
    "StaleTermError": (StaleTermError("other"), 503, "ledger-refused"),
    "KeyStoreError": (KeyStoreError("no key"), 503, "key-store-unavailable"),
    "OverloadedError": (OverloadedError(7), 503, "overloaded"),
    "RotationRefusedError": (RotationRefusedError("not now"), 503, "ledger-refused"),
    "KeyBusyError": (KeyBusyError(), 409, "idempotency-in-flight"),
    "KeyTakenError": (KeyTakenError(), 409, "idempotency-in-flight"),
    "KeyErasedError": (KeyErasedError(), 409, "idempotency-erased"),
    "KeyMalformedError": (KeyMalformedError(), 400, "idempotency-key-malformed"),
    "KeyReusedError": (KeyReusedError(), 422, "idempotency-key-reused"),
    "TenantBusyError": (TenantBusyError(7), 429, "tenant-busy"),
    "ToolsBusyError": (ToolsBusyError(7), 429, "tools-busy"),
}
# These end a start, a run, a call of a tool or of a witness; should one come to the edge, it is a
# fault, and opaque.
INSIDE = {
    "ConditionRefusedError": ConditionRefusedError("planted-words"),
    "ConfigurationError": ConfigurationError("planted-words"),
    "ModelError": ModelError("planted-words"),
    "ConditionError": ConditionError("planted-words"),
    "RecordFormError": RecordFormError("planted-words"),
    "RunParkedError": RunParkedError(),
    "ToolError": ToolError("planted-words"),
    "ConfinementError": ConfinementError("planted-words"),
    "UnreadableShellError": UnreadableShellError("planted-words"),
    "EgressError": EgressError("planted-words", "planted-words"),
    "WitnessError": WitnessError("planted-words"),
    "WitnessUnavailableError": WitnessUnavailableError("planted-words"),
    "WitnessRefusedError": WitnessRefusedError(409, is_fork=True),
    "WitnessAheadError": WitnessAheadError(7),
    "MeshFlowError": MeshFlowError("planted-words"),
    "ValueError": ValueError("planted-words"),
    "KeyError": KeyError("planted-words"),
    "ExceptionGroup": ExceptionGroup("planted-words", [ValueError("planted-words")]),
}


class Body(BaseModel):
    """What the test route takes."""

    number: int


def raising(error: Exception) -> FastAPI:
    """The application's own error handling around one route that raises."""
    app = FastAPI()

    @app.get("/it")
    async def it() -> None:
        raise error

    @app.post("/take")
    async def take(_: Body) -> None:
        return None

    problems.install(app, lambda: bytes(64))
    app.add_middleware(
        Guard,
        doorkeeper=Doorkeeper(KeySource.from_list("k" * 24)),
        rates=RequestRates(limit_of=lambda _: 1000, now_seconds=time.monotonic),
        max_body_bytes=1024,
        new_id=lambda size: "0" * 2 * size,
        access_log=False,
    )
    return app


def within(app: FastAPI) -> httpx2.AsyncClient:
    """A client that calls the application without a socket; what it raises is raised here."""
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://edge.test", trust_env=False)


def rows() -> dict[str, list[str]]:
    """The table of codes: code to status, title, when, what to do."""
    text = PAGE.read_text(encoding="utf-8").partition("## Codes")[2]
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {row[1].strip("`"): [row[0], *row[2:]] for row in cells}
    assert len(found) == len(lines), "a code has one row"
    return found


def test_one_code_has_one_status_and_one_title() -> None:
    by_code: dict[str, problems.Kind] = {}
    for kind in problems.kinds():
        assert by_code.setdefault(kind.code, kind) == kind


def test_the_page_has_exactly_the_problems_there_are() -> None:
    told = {code: row[:2] for code, row in rows().items()}
    assert told == {kind.code: [str(kind.status), kind.title] for kind in problems.kinds()}


def test_the_page_says_when_and_what_to_do() -> None:
    for code, row in rows().items():
        assert all(len(cell) > 20 for cell in row[2:]), code


def test_the_rows_stand_in_order() -> None:
    found = [(row[0], code) for code, row in rows().items()]
    assert found == sorted(found)


def test_every_error_of_the_domain_is_thought_of() -> None:
    declared = {
        name
        for name, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, MeshFlowError)
    }
    assert declared == (set(RAISED) | set(INSIDE)) - {"ValueError", "KeyError", "ExceptionGroup"}


@pytest.mark.anyio
@pytest.mark.parametrize("name", RAISED)
async def test_an_error_at_the_edge_is_its_problem(name: str) -> None:
    error, status, code = RAISED[name]
    async with within(raising(error)) as client:
        response = await client.get("/it")
    problem = problem_of(response, status, code)
    if isinstance(error, OverloadedError):
        assert response.headers["retry-after"] == "7"
    if isinstance(error, PolicyDeniedError):
        assert (problem["run_id"], problem["rules"]) == ("run_x", ["r1.schema"])
    assert (problem["receipt"] is not None) == isinstance(error, PolicyDeniedError)
    if isinstance(error, InvalidSubmissionError):
        assert problem["errors"] == [{"pointer": "/a", "rule": "b"}]


@pytest.mark.anyio
@pytest.mark.parametrize("name", INSIDE)
async def test_what_should_not_come_to_the_edge_is_opaque(name: str) -> None:
    async with within(raising(INSIDE[name])) as client:
        response = await client.get("/it")
    problem = problem_of(response, 500, "internal")
    assert problem["detail"] == problem["title"]
    assert "planted" not in response.text
    assert name not in response.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "content", "content_type", "status", "code"),
    [
        ("GET", "/nowhere", b"", "", 404, "not-found"),
        ("GET", "/v1/nowhere", b"", "", 401, "unauthenticated"),
        ("GET", "/take", b"", "", 405, "method-not-allowed"),
        ("POST", "/take", b"{", "application/json", 400, "malformed"),
        ("POST", "/take", b"{}", "text/plain", 415, "unsupported-media-type"),
        ("POST", "/take", b"{}", "application/json", 422, "validation"),
        ("POST", "/take", b" " * 1025, "application/json", 413, "too-large"),
    ],
)
async def test_what_the_edge_itself_refuses_is_its_problem(
    method: str, path: str, content: bytes, content_type: str, status: int, code: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    async with within(raising(ValueError())) as client:
        response = await client.request(method, path, content=content, headers=headers)
    problem_of(response, status, code)


def test_a_bare_status_is_a_problem_too() -> None:
    assert problems.by_status(503).code == "unavailable"
    assert problems.by_status(599).code == "internal"
    assert problems.by_status(418).code == "http-418"
