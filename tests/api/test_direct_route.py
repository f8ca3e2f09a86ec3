"""The route that answers by itself: what the framework would have seen to, it sees to."""

from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from app.api import problems
from app.api.auth import CallerDep, Doorkeeper
from app.api.direct_route import direct
from app.domain.run import TenantId
from app.keys.key_ring import KeySource
from app.main import NO_TELEMETRY

pytestmark = pytest.mark.anyio

KEY = "direct-route-key-0000000000000000000000001"


class Sum(BaseModel):
    """What the route takes."""

    first: int


async def _answer(request: Request, body: Sum, caller: CallerDep) -> Response:
    return Response(f"{request.method} {body.first} {caller.tenant}")


def _client() -> httpx2.AsyncClient:
    """Nothing stands before the route, not the guard nor a dependency."""
    app = FastAPI(telemetry=NO_TELEMETRY)
    doorkeeper = Doorkeeper(KeySource.from_list(f"acme:{KEY}", dev=False))
    doorkeeper.learn({"acme": TenantId(UUID(int=1))})
    app.state.doorkeeper = doorkeeper
    app.router.add_api_route(
        "/sums", _answer, methods=["POST"], route_class_override=direct(Sum, _answer)
    )
    problems.install(app, lambda: b"")
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://test", headers={"X-API-Key": KEY}
    )


async def test_it_answers_whoever_has_a_key() -> None:
    async with _client() as client:
        answer = await client.post("/sums", content=b'{"first": 7}')
    assert (answer.status_code, answer.text) == (200, "POST 7 acme")


@pytest.mark.parametrize("body", [b'{"first": 7}', b'{"first": "x"}', b""])
async def test_without_a_key_nobody_learns_whether_the_body_is_right(body: bytes) -> None:
    async with _client() as client:
        answer = await client.post("/sums", content=body, headers={"X-API-Key": "another"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("body", "place", "rule"),
    [
        (b"", "/body", "missing"),
        (b'{"first": "secret words"}', "/body/first", "int_parsing"),
        (b"{}", "/body/first", "missing"),
        (b"secret words", "/body", "json_invalid"),
    ],
)
async def test_a_body_that_does_not_fit_is_told_by_its_place_and_not_repeated(
    body: bytes, place: str, rule: str
) -> None:
    async with _client() as client:
        answer = await client.post("/sums", content=body)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": place, "rule": rule}]
    assert "secret words" not in answer.text


async def test_the_document_says_what_it_reads() -> None:
    async with _client() as client:
        operation = (await client.get("/openapi.json")).json()["paths"]["/sums"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Sum"}
