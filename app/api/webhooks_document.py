"""What webhooks send, as a document of its own: generators choke on it inside the main one."""

import json
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import app as package
from app.domain.approval import ApprovalState
from app.domain.run import RunStatus
from app.domain.webhook import TEST_EVENT, WebhookEvent

_DESCRIPTION = (
    "Each event is one POST to an endpoint that asked for its type, at least once, under one"
    " `webhook-id` for all attempts. Signed after Standard Webhooks 1.0: verify"
    " `webhook-signature` and the time with the endpoint's secret before anything else. Any 2xx"
    " answer within 10 seconds is success, 410 disables the endpoint; everything else is tried"
    " again for 24 hours, no sooner than `Retry-After` says. Events bear ids, states, times and"
    " hashes, never content: read the run for that. They may come late or in another order:"
    " `seq` tells which state of a run is the newer one."
)
_HEADERS = {
    "webhook-id": "The same at every attempt: what was seen under it needs no second look",
    "webhook-timestamp": "When this attempt was signed, in Unix seconds",
    "webhook-signature": "One or two of `v1,` and base64, apart by a space",
}
_HASH = r"^[0-9a-f]{64}$"
_SUMMARIES = {
    WebhookEvent.RUN_QUEUED: "A run was admitted",
    WebhookEvent.RUN_RUNNING: "A run began, or goes on",
    WebhookEvent.RUN_AWAITING_APPROVAL: "A run waits for an approval",
    WebhookEvent.RUN_CANCELLING: "A run is being cancelled",
    WebhookEvent.RUN_SUCCEEDED: "A run ended with a result",
    WebhookEvent.RUN_FAILED: "A run failed",
    WebhookEvent.RUN_BLOCKED: "The policy gate ended a run, or did not admit it",
    WebhookEvent.RUN_CANCELLED: "A run was cancelled",
    WebhookEvent.RUN_EXPIRED: "A run's time was over",
    WebhookEvent.RUN_INTERRUPTED: "A run lost its process and could not go on",
    WebhookEvent.APPROVAL_REQUESTED: "A call waits for somebody to decide",
    WebhookEvent.APPROVAL_DECIDED: "It was decided, or its time is over",
    WebhookEvent.LOG_CHECKPOINT: "The tenant's log has a new signed checkpoint: keep it",
}
_EXAMPLE_RUN = "run_0198c5f07a7c7d2e8f60123456789abc"
_EXAMPLE_TIME = "2026-11-25T12:00:00.000000Z"
_EXAMPLE_HASH = "0f" * 32


class _Told(BaseModel):
    model_config = ConfigDict(extra="allow")


class RunStateData(_Told):
    """The state that a run came to, and the last record that brought it there."""

    run_id: Annotated[str, Field(pattern=r"^run_[0-9a-f]{32}$")]
    status: RunStatus
    error: str | None
    seq: Annotated[int, Field(description="of that record: the greater one is the newer state")]
    chain_hash: Annotated[str, Field(pattern=_HASH, description="of the run's chain up to it")]
    created_at: str
    finished_at: str | None


class RunStateEvent(_Told):
    """A run came to another state."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "run.succeeded",
                "timestamp": _EXAMPLE_TIME,
                "data": {
                    "run_id": _EXAMPLE_RUN,
                    "status": "succeeded",
                    "error": None,
                    "seq": 4,
                    "chain_hash": _EXAMPLE_HASH,
                    "created_at": _EXAMPLE_TIME,
                    "finished_at": _EXAMPLE_TIME,
                },
            }
        }
    )

    type: str
    timestamp: str
    data: RunStateData


class ApprovalData(_Told):
    """An approval and where it is. What it is about is read with its id, by whoever may."""

    approval_id: Annotated[str, Field(pattern=r"^apr_[0-9a-f]{32}$")]
    run_id: Annotated[str, Field(pattern=r"^run_[0-9a-f]{32}$")]
    status: ApprovalState
    seq: Annotated[int, Field(description="of the record of the run that asks for it")]
    created_at: str
    expires_at: str


class ApprovalEvent(_Told):
    """Somebody is asked to decide, or has decided."""

    type: Literal["approval.requested", "approval.decided"]
    timestamp: str
    data: ApprovalData


class CheckpointData(_Told):
    """A signed head of the tenant's log: whoever keeps it is a witness of all that is below it."""

    origin: str
    size: int
    root_hash: Annotated[str, Field(pattern=_HASH)]
    checkpoint: Annotated[str, Field(description="a signed note (C2SP tlog-checkpoint)")]


class CheckpointEvent(_Told):
    """The log grew and was signed."""

    type: Literal["log.checkpoint"]
    timestamp: str
    data: CheckpointData


class TestData(_Told):
    """Whom the test is for."""

    endpoint_id: Annotated[str, Field(pattern=r"^whe_[0-9a-f]{32}$")]


class TestEvent(_Told):
    """Somebody wants to see whether events arrive."""

    type: Literal["webhook.test"]
    timestamp: str
    data: TestData


@lru_cache(maxsize=1)
def webhooks_bytes() -> bytes:
    """The document as committed: sorted keys, two spaces, one newline at the end."""
    text = json.dumps(_document(), indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8") + b"\n"


def _document() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for model in (RunStateEvent, ApprovalEvent, CheckpointEvent, TestEvent):
        described = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(described.pop("$defs", {}))
        schemas[model.__name__] = described
    hooks = {event.value: _hook(event.value, _SUMMARIES[event], _schema(event)) for event in _ALL}
    hooks[TEST_EVENT] = _hook(TEST_EVENT, "Somebody asked for a test", "TestEvent")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MeshFlow webhooks",
            "version": package.__version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "contact": {"name": "MeshFlow security", "email": "security@meshflow.dev"},
        },
        "tags": [{"name": "events", "description": "What is told to webhook endpoints."}],
        "webhooks": hooks,
        "components": {"schemas": schemas},
    }


_ALL = tuple(WebhookEvent)


def _schema(event: WebhookEvent) -> str:
    match event:
        case WebhookEvent.LOG_CHECKPOINT:
            return "CheckpointEvent"
        case WebhookEvent.APPROVAL_REQUESTED | WebhookEvent.APPROVAL_DECIDED:
            return "ApprovalEvent"
        case _:
            return "RunStateEvent"


def _hook(name: str, summary: str, schema: str) -> dict[str, Any]:
    return {
        "post": {
            "operationId": f"events_{name.replace('.', '_')}",
            "tags": ["events"],
            "summary": summary,
            "parameters": [
                {
                    "name": header,
                    "in": "header",
                    "required": True,
                    "description": described,
                    "schema": {"type": "string"},
                }
                for header, described in _HEADERS.items()
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}
                },
            },
            "responses": {
                "2XX": {"description": "Received"},
                "410": {"description": "Never again: the endpoint is disabled"},
            },
        }
    }
