"""Swagger UI from our own files under a strict Content-Security-Policy, and the API document.

Threat: Supply chain attacks
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from app.api.openapi_document import openapi_bytes
from app.api.webhooks_document import webhooks_bytes

router = APIRouter(include_in_schema=False)

_STATIC = Path(__file__).with_name("static")
_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "swagger-ui-bundle.js": "text/javascript",
        "swagger-ui.css": "text/css",
        "docs-start.js": "text/javascript",
        "favicon-32x32.png": "image/png",
    }
)
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@lru_cache(maxsize=8)
def _file(name: str) -> bytes:
    return (_STATIC / name).read_bytes()


@router.get("/docs")
async def docs() -> Response:
    """Swagger UI: everything it loads comes from this server."""
    return Response(
        content=_file("docs.html"),
        media_type="text/html",
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"},
    )


@router.get("/docs/static/{name}")
async def docs_file(name: str) -> Response:
    """One of the four files of the page."""
    media_type = _TYPES.get(name)
    if media_type is None:
        raise HTTPException(404)
    return Response(
        content=_file(name),
        media_type=media_type,
        headers={"Cache-Control": "public, max-age=86400"},
    )


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    """The API document, the same bytes as openapi/openapi.json."""
    return Response(content=openapi_bytes(request.app), media_type="application/json")


@router.get("/webhooks.json")
async def webhooks() -> Response:
    """What webhooks send, the same bytes as openapi/webhooks.json."""
    return Response(content=webhooks_bytes(), media_type="application/json")
