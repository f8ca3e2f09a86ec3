"""The published OpenAPI document: 3.1, canonical JSON, without what generators choke on."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

import app as package
from app.api.problems import Problem

TAGS = (
    {"name": "runs", "description": "Start tasks, follow them, read and verify their ledger."},
    {"name": "stops", "description": "Stop every run of the tenant, or of one agent, at once."},
    {"name": "approvals", "description": "Calls that wait for somebody to decide; decide them."},
    {"name": "erasures", "description": "Take content away lawfully, hold it, compare runs."},
    {"name": "webhooks", "description": "Who is told of runs and checkpoints; see /webhooks.json."},
    {"name": "policies", "description": "What the gate decides by: versions, tries, what holds."},
    {"name": "ledger", "description": "Proofs, keys and exports for whoever checks the ledger."},
    {"name": "catalog", "description": "What this deployment offers, and who you are."},
    {"name": "system", "description": "Liveness, readiness, version. Open."},
)
_DESCRIPTION = (
    "MeshFlow stands between untrusted tasks and language models: a policy gate decides what"
    " enters, what an agent may do and what leaves; every step is a record of a ledger that"
    " outsiders can verify. Authenticate with `Authorization: Bearer <key>` or `X-API-Key: <key>`."
    " Clients ignore response fields they do not know; requests with unknown fields are refused."
)
# Written here and not as two dependencies: those would be solved for every request, unused.
_SCHEMES = {
    "HTTPBearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer <key>`",
    },
    "APIKeyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "`X-API-Key: <key>`",
    },
}
_NEVER = frozenset({"HTTPValidationError", "ValidationError"})


def operation_id(route: APIRoute) -> str:
    """`<tag>_<verb>[_<noun>]`: the tag and the handler's name."""
    tag = route.tags[0] if route.tags else "none"
    return f"{tag}_{route.name}"


class DescribedApp(FastAPI):
    """An application that describes itself with this document."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _document(self)
        return self.openapi_schema


def openapi_bytes(app: FastAPI) -> bytes:
    """The document as committed: sorted keys, two spaces, one newline at the end."""
    text = json.dumps(app.openapi(), indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8") + b"\n"


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="MeshFlow",
        version=package.__version__,
        openapi_version="3.1.0",
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[dict(tag) for tag in TAGS],
        servers=[{"url": "/"}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        contact={"name": "MeshFlow (security@meshflow.dev)"},
        separate_input_output_schemas=False,
    )
    # Written here and not handed over: FastAPI drops the address where email-validator is missing.
    document["info"]["contact"] = {"name": "MeshFlow security", "email": "security@meshflow.dev"}
    schemas: dict[str, Any] = document["components"]["schemas"]
    for name in _NEVER:
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    document["components"]["securitySchemes"] = _SCHEMES
    for path in document["paths"].values():
        for operation in path.values():
            # Open is what a route says of itself; silence means a key.
            operation.setdefault("security", [{name: []} for name in _SCHEMES])
            _tidy(operation)
    return document


def _tidy(operation: dict[str, Any]) -> None:
    """No FastAPI-made 422 beside ours, and no JSON beside an event stream."""
    for status, response in list(operation["responses"].items()):
        content = response.get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        if schema.get("$ref", "").rsplit("/", 1)[-1] in _NEVER:
            if "application/problem+json" in content:
                del content["application/json"]
            else:
                del operation["responses"][status]
        elif "application/problem+json" in content:
            content.pop("application/json", None)
        elif "text/event-stream" in content:
            content["text/event-stream"].pop("itemSchema", None)
