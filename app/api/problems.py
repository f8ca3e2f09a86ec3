"""The only place that knows HTTP statuses: an error class becomes an RFC 9457 problem.

No problem repeats input, matched text or a traceback.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from app.api.receipt_views import ReceiptView, receipt_view
from app.domain.errors import (
    ApprovalClosedError,
    ApprovalRefusedError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidSubmissionError,
    KeyBusyError,
    KeyErasedError,
    KeyMalformedError,
    KeyReusedError,
    KeyStoreError,
    LedgerBrokenError,
    LedgerError,
    LedgerUnavailableError,
    MeshFlowError,
    NotFoundError,
    NotSequencedError,
    OverloadedError,
    PolicyDeniedError,
    PolicyRefusedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    SecondPersonError,
    StaleEpochError,
    TenantBusyError,
    ToolsBusyError,
)

_log = logging.getLogger("meshflow.api")
_SEQUENCED_SECONDS = 5
MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One thing wrong with a request: where, and which rule; never the value."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    rule: str


class Problem(BaseModel):
    """An RFC 9457 problem. `code` is stable; `detail` is for people."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "type": "/problems/not-found",
                "title": "No such object",
                "status": 404,
                "code": "not-found",
                "detail": "no such run",
                "request_id": "5f0c2f7e9b1d4c7e8a3b6d5c4e3f2a1b",
                "run_id": None,
                "rules": [],
                "errors": [],
                "receipt": None,
            }
        },
    )

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    run_id: str | None
    rules: list[str]
    errors: list[FieldProblem]
    receipt: ReceiptView | None


@dataclass(frozen=True, slots=True)
class Kind:
    """How one class of error looks on the wire."""

    status: int
    code: str
    title: str


PROBLEMS: Mapping[type[Exception], Kind] = {
    NotFoundError: Kind(404, "not-found", "No such object"),
    ForbiddenError: Kind(403, "forbidden", "Not allowed"),
    InvalidSubmissionError: Kind(422, "invalid-submission", "The submission cannot be run"),
    PreconditionFailedError: Kind(412, "precondition-failed", "Another version is in force"),
    PreconditionRequiredError: Kind(428, "precondition-required", "Say which version you mean"),
    PolicyRefusedError: Kind(422, "policy-refused", "This policy cannot be taken in"),
    SecondPersonError: Kind(403, "second-person", "Another key has to confirm this"),
    PolicyDeniedError: Kind(403, "policy-denied", "The policy gate refused the task"),
    ApprovalRefusedError: Kind(403, "approval-refused", "This decision does not count"),
    ApprovalClosedError: Kind(409, "approval-closed", "The approval is closed"),
    LedgerUnavailableError: Kind(503, "ledger-unavailable", "The ledger cannot be reached"),
    LedgerBrokenError: Kind(409, "ledger-broken", "The ledger of this run does not verify"),
    NotSequencedError: Kind(409, "not-sequenced", "Not in the signed log yet"),
    StaleEpochError: Kind(409, "run-taken-over", "Another process owns the run"),
    IllegalTransitionError: Kind(409, "illegal-transition", "The run's state forbids this"),
    KeyMalformedError: Kind(400, "idempotency-key-malformed", "The Idempotency-Key is none"),
    KeyBusyError: Kind(409, "idempotency-in-flight", "The first request is not answered yet"),
    KeyErasedError: Kind(409, "idempotency-erased", "What the key began was erased"),
    KeyReusedError: Kind(422, "idempotency-key-reused", "The key came with another request"),
    LedgerError: Kind(503, "ledger-refused", "The ledger refused the record"),
    KeyStoreError: Kind(503, "key-store-unavailable", "The key store cannot be used"),
    OverloadedError: Kind(503, "overloaded", "Too much is in flight"),
    TenantBusyError: Kind(429, "tenant-busy", "Too much of this tenant is in flight"),
    ToolsBusyError: Kind(429, "tools-busy", "Too many programs are waiting"),
    RequestValidationError: Kind(422, "validation", "The request does not fit the schema"),
}
_INTERNAL = Kind(500, "internal", "Something unexpected happened")
_BY_STATUS: Mapping[int, Kind] = {
    400: Kind(400, "malformed", "The request cannot be read"),
    401: Kind(401, "unauthenticated", "No valid API key"),
    403: Kind(403, "forbidden", "Not allowed"),
    404: Kind(404, "not-found", "No such object"),
    405: Kind(405, "method-not-allowed", "Not with this method"),
    412: Kind(412, "precondition-failed", "Another version is in force"),
    413: Kind(413, "too-large", "The body is too large"),
    415: Kind(415, "unsupported-media-type", "The body must be application/json"),
    422: Kind(422, "validation", "The request does not fit the schema"),
    428: Kind(428, "precondition-required", "Say which version you mean"),
    429: Kind(429, "too-many-requests", "This key has asked too often"),
    503: Kind(503, "unavailable", "Not now"),
}


def kinds() -> tuple[Kind, ...]:
    """Every problem this service can answer with, for its documentation."""
    return (*PROBLEMS.values(), *_BY_STATUS.values(), _INTERNAL)


def kind_of(error: Exception) -> Kind:
    """The wire form of an error: looked up along its classes; anything unknown is opaque."""
    for parent in type(error).__mro__:
        found = PROBLEMS.get(parent)
        if found is not None:
            return found
    return _INTERNAL


def by_status(status: int) -> Kind:
    """The wire form of a bare HTTP status."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _INTERNAL
    return Kind(status, f"http-{status}", HTTPStatus(status).phrase)


def problem_response(
    kind: Kind,
    detail: str,
    request_id: str,
    *,
    run_id: str | None = None,
    rules: tuple[str, ...] = (),
    errors: tuple[FieldProblem, ...] = (),
    receipt: ReceiptView | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response for one problem."""
    body = Problem(
        type=f"/problems/{kind.code}",
        title=kind.title,
        status=kind.status,
        code=kind.code,
        detail=detail,
        request_id=request_id,
        run_id=run_id,
        rules=list(rules),
        errors=list(errors),
        receipt=receipt,
    )
    extra = {} if kind.status != HTTPStatus.UNAUTHORIZED else {"WWW-Authenticate": "Bearer"}
    if kind.status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra["Retry-After"] = "2"
    return Response(
        content=body.model_dump_json(),
        status_code=kind.status,
        media_type=MEDIA_TYPE,
        headers={**extra, **(headers or {})},
    )


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation declares it may answer besides success."""
    return {
        status: {
            "description": by_status(status).title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*statuses, 401, 429, 500, 503})
    }


def request_id_of(request: Request) -> str:
    """The id that the middleware gave this request."""
    found = request.scope.get("meshflow.request_id", "")
    return found if isinstance(found, str) else ""


def install(app: FastAPI, certificate: Callable[[], bytes]) -> None:
    """Answer every error of the application with a problem. `certificate`: of its writer's key."""
    app.add_exception_handler(MeshFlowError, partial(_meshflow_error, certificate))
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)


async def _meshflow_error(
    certificate: Callable[[], bytes], request: Request, error: Exception
) -> Response:
    return problem_of(request, error, certificate())


def problem_of(request: Request, error: Exception, certificate: bytes) -> Response:
    """The answer to an error of ours. `certificate`: of this process's writer key."""
    kind = kind_of(error)
    detail = str(error) if kind is not _INTERNAL else _INTERNAL.title
    fields: tuple[FieldProblem, ...] = ()
    run_id: str | None = None
    rules: tuple[str, ...] = ()
    receipt: ReceiptView | None = None
    headers: dict[str, str] = {}
    match error:
        case PolicyDeniedError():
            run_id, rules = error.run_id, error.rules
            detail = f"the policy gate refused this task ({error.code})"
            receipt = receipt_view(error.receipt, certificate)
        case ApprovalRefusedError():
            rules = error.rules
        case InvalidSubmissionError():
            fields = (FieldProblem(pointer=error.pointer, rule=error.reason),)
        case PolicyRefusedError():
            fields = tuple(
                FieldProblem(pointer=f"/body{part.pointer}"[:256], rule=part.reason)
                for part in error.parts
            )
        case NotSequencedError():
            headers["Retry-After"] = str(_SEQUENCED_SECONDS)
        case KeyBusyError():
            headers["Retry-After"] = "1"
        case OverloadedError():
            headers["Retry-After"] = str(error.retry_after_seconds)
    return problem_response(
        kind,
        detail,
        request_id_of(request),
        run_id=run_id,
        rules=rules,
        errors=fields,
        receipt=receipt,
        headers=headers,
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    fields: list[FieldProblem] = []
    if isinstance(error, RequestValidationError):
        fields = [_field(item) for item in error.errors()[:32]]
    return problem_response(
        PROBLEMS[RequestValidationError],
        "see errors for what and where",
        request_id_of(request),
        errors=tuple(fields),
    )


def _field(item: Mapping[str, Any]) -> FieldProblem:
    # The location of an unknown field ends in the caller's own name for it: that is input too.
    place = [str(step) for step in item["loc"]]
    if item["type"] == "extra_forbidden":
        place = [*place[:-1], "*"]
    pointer = "/" + "/".join(step.replace("~", "~0").replace("/", "~1") for step in place)
    return FieldProblem(pointer=pointer[:256], rule=str(item["type"]))


async def _http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = by_status(status)
    return problem_response(kind, kind.title, request_id_of(request))


async def _unexpected(request: Request, error: Exception) -> Response:
    return unexpected(error, request_id_of(request))


def unexpected(error: Exception, request_id: str) -> Response:
    """The opaque answer to what nobody foresaw; the operator's log has the traceback."""
    _log.error("unexpected: %s", type(error).__name__, exc_info=error)
    return problem_response(_INTERNAL, _INTERNAL.title, request_id)
