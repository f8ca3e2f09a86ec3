"""A route for the path of every run: the key, then the body read once, and no other dependency.

The framework's own way costs more than what it calls. Its document still says what it reads there.

Threat: Unauthorised API access
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from app.api.auth import caller_of
from app.domain.run import Caller

Body = TypeVar("Body", bound=BaseModel)


def direct(
    model: type[Body], answer: Callable[[Request, Body, Caller], Awaitable[Response]]
) -> type[APIRoute]:
    """A class of route that answers by itself; 401 before the body is looked at, then 422."""

    async def handle(request: Request) -> Response:
        caller = caller_of(request)
        return await answer(request, _read(model, await request.body()), caller)

    class DirectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
            return handle

    return DirectRoute


def _read(model: type[Body], body: bytes) -> Body:
    """The body as its model. RequestValidationError, which repeats nothing of it."""
    if not body:
        raise RequestValidationError([{"type": "missing", "loc": ("body",)}])
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in found])
