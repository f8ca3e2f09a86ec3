"""The committed document is the application's own, valid, and kind to client generators."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.openapi_document import openapi_bytes
from app.api.problems import Problem
from app.main import create_app
from app.settings import Settings
from tests.support.api_matrix import MEDIA_TYPE, OPEN_OPERATIONS, operations

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(COMMITTED.read_bytes())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = {operation.operation_id: operation for operation in operations(DOCUMENT)}
# Unions that have a name of their own, and are therefore one type in every client.
NAMED_UNIONS = {"RunEvent", "JsonValue"}


def written(tmp_path: Path) -> bytes:
    """The document that the code gives. No database is needed for that."""
    names = {
        "MESHFLOW_API_KEYS": "k" * 24,
        "MESHFLOW_DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none",
        "MESHFLOW_DATA_DIR": str(tmp_path),
    }
    return openapi_bytes(create_app(Settings.from_environ(names, uid=1000, home=tmp_path)))


def inner(node: object) -> Iterator[dict[str, Any]]:
    """Every object in a part of the document, itself first."""
    if isinstance(node, dict):
        yield node
        for item in node.values():
            yield from inner(item)
    elif isinstance(node, list):
        for item in node:
            yield from inner(item)


def reachable(node: object) -> set[str]:
    """The names of all schemas that a part of the document needs."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        for part in inner(waiting.pop()):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                waiting.append(SCHEMAS[name])
    return found


RESPONSES = reachable([operation.described["responses"] for operation in OPERATIONS.values()])
REQUESTS = reachable([o.described.get("requestBody", {}) for o in OPERATIONS.values()])


def test_the_committed_document_is_what_the_code_gives(tmp_path: Path) -> None:
    assert written(tmp_path) == COMMITTED.read_bytes(), "run: make openapi"


def test_it_is_canonical() -> None:
    text = json.dumps(DOCUMENT, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert text.encode() == COMMITTED.read_bytes()


def test_it_is_valid_openapi_3_1() -> None:
    assert re.fullmatch(r"3\.1\.\d+", DOCUMENT["openapi"])
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_it_fits_any_deployment_and_says_whose_it_is() -> None:
    assert DOCUMENT["servers"] == [{"url": "/"}]
    assert DOCUMENT["info"]["license"]["identifier"] == "Apache-2.0"
    assert DOCUMENT["info"]["contact"]["email"]
    assert "webhooks" not in DOCUMENT


def test_nothing_in_it_is_for_another_version_or_from_the_framework() -> None:
    assert not {"HTTPValidationError", "ValidationError"} & set(SCHEMAS)
    assert not any("itemSchema" in part for part in inner(DOCUMENT))
    assert "HTTPValidationError" not in COMMITTED.read_text(encoding="utf-8")


def test_every_operation_has_one_declared_tag_and_an_id_made_of_it() -> None:
    declared = [tag["name"] for tag in DOCUMENT["tags"]]
    assert all(tag["description"] for tag in DOCUMENT["tags"])
    assert len(OPERATIONS) == len(operations(DOCUMENT)) >= 27
    for operation_id, operation in OPERATIONS.items():
        (tag,) = operation.described["tags"]
        assert tag in declared
        assert re.fullmatch(rf"{tag}_[a-z]+(_[a-z]+)*", operation_id)
        assert operation.described["summary"]
        assert operation.described["description"]
    assert {operation.described["tags"][0] for operation in OPERATIONS.values()} == set(declared)


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_security_is_either_scheme_or_openly_none(operation_id: str) -> None:
    security = OPERATIONS[operation_id].described["security"]
    if operation_id in OPEN_OPERATIONS:
        assert security == []
        assert not OPERATIONS[operation_id].path.startswith("/v1")
    else:
        assert security == [{"HTTPBearer": []}, {"APIKeyHeader": []}]
        schemes = DOCUMENT["components"]["securitySchemes"]
        assert (schemes["HTTPBearer"]["type"], schemes["HTTPBearer"]["scheme"]) == (
            "http",
            "bearer",
        )
        key = schemes["APIKeyHeader"]
        assert (key["type"], key["in"], key["name"]) == ("apiKey", "header", "X-API-Key")


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_every_operation_declares_its_problems(operation_id: str) -> None:
    operation = OPERATIONS[operation_id]
    responses = operation.described["responses"]
    expected: set[str] = set() if operation.is_open else {"401", "429", "500", "503"}
    if operation_id == "system_ready":
        expected |= {"503"}
    if operation.has_body:
        expected |= {"400", "413", "415", "422"}
    if "{" in operation.path:
        expected |= {"404"}
    if "{run_id}" in operation.path or operation_id.startswith(("runs_", "webhooks_")):
        expected |= {"403"}
    if operation.needed_headers():
        expected |= {"412", "428"}
    bounds = {"minimum", "maximum", "maxLength", "pattern", "enum"}
    parameters = operation.described.get("parameters", [])
    if any(bounds & set(part) for part in inner(parameters)) or "RunStatus" in reachable(
        parameters
    ):
        expected |= {"422"}
    assert expected <= set(responses)
    for status, response in responses.items():
        if int(status) < 400:
            assert MEDIA_TYPE not in response.get("content", {})
            assert ("content" in response) is (status not in ("204", "304"))
            continue
        assert list(response["content"]) == [MEDIA_TYPE], status
        assert response["content"][MEDIA_TYPE]["schema"] == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize("name", sorted(RESPONSES))
def test_a_response_has_no_optional_property_and_no_default(name: str) -> None:
    for part in inner(SCHEMAS[name]):
        properties = part.get("properties")
        if isinstance(properties, dict):
            assert set(part.get("required", [])) == set(properties)
            assert not any("default" in described for described in properties.values())


def test_requests_and_responses_share_no_object() -> None:
    shared = {name for name in REQUESTS & RESPONSES if "properties" in SCHEMAS[name]}
    assert shared == set()


@pytest.mark.parametrize("name", sorted(REQUESTS - {"JsonValue"}))
def test_a_request_refuses_unknown_fields(name: str) -> None:
    if "properties" in SCHEMAS[name]:
        assert SCHEMAS[name]["additionalProperties"] is False


def test_every_schema_is_used() -> None:
    parameters = reachable([o.described.get("parameters", []) for o in OPERATIONS.values()])
    assert set(SCHEMAS) == RESPONSES | REQUESTS | parameters


def test_no_schema_got_a_made_up_name() -> None:
    for name in SCHEMAS:
        assert re.fullmatch(r"[A-Z][A-Za-z]+", name), name
        assert re.search(r"(Input|Output|Data|Inner|Body|Response)\d*$", name) is None, name


def test_no_union_is_without_a_name() -> None:
    for name, schema in [*SCHEMAS.items(), *((k, o.described) for k, o in OPERATIONS.items())]:
        if name in NAMED_UNIONS:
            continue
        for part in inner(schema):
            for word in ("anyOf", "oneOf"):
                real = [item for item in part.get(word, []) if item != {"type": "null"}]
                assert len(real) <= 1, name
            properties = part.get("properties")
            assert not isinstance(properties, dict) or all(properties.values()), name


def test_money_and_counts_are_integers() -> None:
    for name, schema in SCHEMAS.items():
        if name not in NAMED_UNIONS:
            assert not any(part.get("type") == "number" for part in inner(schema)), name


def test_events_are_one_named_union_told_apart_by_their_kind() -> None:
    union = SCHEMAS["RunEvent"]
    mapping = union["discriminator"]["mapping"]
    assert union["discriminator"]["propertyName"] == "kind"
    assert {item["$ref"] for item in union["oneOf"]} == set(mapping.values())
    assert len(mapping) == 15
    for kind, reference in mapping.items():
        schema = SCHEMAS[reference.rpartition("/")[2]]
        assert schema["properties"]["kind"]["const"] == kind
        assert "kind" in schema["required"]
        assert "default" not in schema["properties"]["kind"]


def test_the_stream_and_its_polling_twin_have_the_same_type() -> None:
    content = OPERATIONS["runs_stream_events"].described["responses"]["200"]["content"]
    reference = {"$ref": "#/components/schemas/RunEvent"}
    assert content == {"text/event-stream": {"schema": reference}}
    assert SCHEMAS["EntryPage"]["properties"]["data"]["items"] == reference
    assert (
        "/entries" in OPERATIONS["runs_stream_events"].described["responses"]["200"]["description"]
    )


def test_every_request_and_the_problem_have_a_whole_example() -> None:
    for operation in OPERATIONS.values():
        if operation.has_body:
            content = operation.described["requestBody"]["content"]
            assert list(content) == ["application/json"]
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert SCHEMAS[name]["example"]
    example = Problem.model_validate(SCHEMAS["Problem"]["example"])
    assert example.type == f"/problems/{example.code}"


def test_lists_have_one_shape() -> None:
    pages = [schema for schema in SCHEMAS.values() if "has_more" in schema.get("properties", {})]
    assert len(pages) == 11
    for page in pages:
        assert set(page["properties"]) == {"data", "has_more", "next_cursor"}
