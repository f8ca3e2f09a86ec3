"""The Idempotency-Key header: read strictly, and what is posted with it is done once.

Source: draft-ietf-httpapi-idempotency-key-header-07; RFC 9651 section 3.3.3 for the string.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request, Response

from app.api.dependencies import ApiServices
from app.domain.errors import KeyMalformedError
from app.domain.idempotency import KeyClaim, Outcome
from app.domain.run import Caller
from app.runs.idempotency_desk import SentRequest

HEADER: Final = "idempotency-key"
REPLAYED: Final = "Idempotency-Replayed"
_MOST_CHARACTERS = 255
# An sf-string and nothing else: no parameter is defined for this header.
_STRING = re.compile(r' *"((?:[ !#-\[\]-~]|\\["\\])+)" *', re.ASCII)
_ESCAPED = re.compile(r'\\(["\\])')
# Described here and read by hand, as Prefer is: every POST has it.
IDEMPOTENCY_KEY: Final = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": (
        "A string in quotes, at most 255 characters, new for every new request: sent again within"
        " 24 hours with the same body, byte by byte, it is answered with what the first one did,"
        " and with `Idempotency-Replayed: true`. 409 while the first is not answered, 422 with"
        " another body, path or set of scopes."
    ),
    "schema": {
        "type": "string",
        "title": "Idempotency-Key",
        "pattern": r'^ *"([ !#-\[\]-~]|\\["\\]){1,255}" *$',
        "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    },
}
Done = tuple[Response, Outcome]


async def claim_of(request: Request, caller: Caller, services: ApiServices) -> KeyClaim | None:
    """The key that a request came with, as digests; None without one. KeyMalformedError."""
    sent = request.headers.getlist(HEADER)
    if not sent:
        return None
    found = _STRING.fullmatch(sent[0]) if len(sent) == 1 else None
    key = "" if found is None else _ESCAPED.sub(r"\1", found.group(1))
    if not 0 < len(key) <= _MOST_CHARACTERS:
        raise KeyMalformedError
    return services.idempotency.claim(
        caller,
        SentRequest(
            key=key,
            method=request.method,
            path=request.scope["path"],
            query=request.scope["query_string"],
            body=await request.body(),
        ),
    )


async def once(
    request: Request,
    caller: Caller,
    services: ApiServices,
    do: Callable[[], Awaitable[Done]],
    again: Callable[[Outcome], Awaitable[Response]],
) -> Response:
    """The answer of `do`, or when the key came before, that of `again`, made from its outcome.

    For what may be done twice if the process dies in the middle. An error frees the key.
    """
    claim = await claim_of(request, caller, services)
    if claim is None:
        return (await do())[0]
    desk, tenant_id = services.idempotency, caller.tenant_id
    async with desk.alone(claim):
        begun = await desk.begin(tenant_id, claim)
        if isinstance(begun, Outcome):
            return replayed(await again(begun))
        try:
            response, outcome = await do()
        except BaseException:
            await desk.end(tenant_id, begun, None)
            raise
        await desk.end(tenant_id, begun, outcome)
        return response


def replayed(response: Response) -> Response:
    """The answer, marked as one that was given before."""
    response.headers[REPLAYED] = "true"
    return response
