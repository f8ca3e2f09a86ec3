"""The document of what webhooks send is the code's own, valid, and names every event there is."""

import json
from pathlib import Path
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.webhooks_document import webhooks_bytes
from app.domain.run import RunStatus
from app.domain.webhook import TEST_EVENT, WebhookEvent

COMMITTED = Path(__file__).parents[2] / "openapi" / "webhooks.json"
DOCUMENT: dict[str, Any] = json.loads(COMMITTED.read_bytes())


def test_the_committed_document_is_what_the_code_gives() -> None:
    assert webhooks_bytes() == COMMITTED.read_bytes(), "run: make openapi"


def test_it_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_every_event_is_described_with_its_headers_and_a_body() -> None:
    assert set(DOCUMENT["webhooks"]) == {*WebhookEvent, TEST_EVENT}
    for name, hook in DOCUMENT["webhooks"].items():
        operation = hook["post"]
        assert operation["operationId"] == f"events_{name.replace('.', '_')}"
        assert {item["name"] for item in operation["parameters"]} == {
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        }
        schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert schema.rpartition("/")[2] in DOCUMENT["components"]["schemas"]


def test_every_state_of_a_run_is_an_event() -> None:
    told = {event.value for event in WebhookEvent if event.value.startswith("run.")}
    assert told == {f"run.{status.value}" for status in RunStatus}
