"""Swagger UI loads nothing but our own, known files, and can be switched off."""

import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest

from app.api.docs_routes import CONTENT_SECURITY_POLICY
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "app" / "api" / "static"


class Page(HTMLParser):
    """What a page loads, and whether anything stands in it that a strict policy forbids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self._open = tag
        self.loads += [str(named[name]) for name in ("src", "href") if name in named]
        self.inline += [name for name in named if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(data)


@pytest.fixture
def visitor(live: LiveServer) -> Iterator[httpx2.Client]:
    with live.client(None) as client:
        yield client


def test_the_page_is_served_under_a_strict_policy(visitor: httpx2.Client) -> None:
    page = visitor.get("/docs")
    policy = page.headers["content-security-policy"]
    assert policy == CONTENT_SECURITY_POLICY
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == ["'self'"]
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert rules[name] == ["'none'"]
    assert "unsafe" not in policy
    assert re.search(r"https?:|\*", policy) is None
    assert page.headers["content-type"].startswith("text/html")


def test_the_page_loads_only_files_of_this_server_and_holds_no_script(
    visitor: httpx2.Client,
) -> None:
    page = Page(visitor.get("/docs").text)
    assert page.inline == []
    assert len(page.loads) == 4
    for address in page.loads:
        assert address.startswith("/docs/static/")
        assert visitor.get(address).status_code == 200


def test_the_files_are_the_published_ones(visitor: httpx2.Client) -> None:
    lines = (STATIC / "SWAGGER_UI_SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {line.split()[1]: line.split()[0] for line in lines if not line.startswith("#")}
    assert set(sums) == {"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"}
    kinds = {".js": "text/javascript", ".css": "text/css", ".png": "image/png"}
    for name, expected in sums.items():
        response = visitor.get(f"/docs/static/{name}")
        assert hashlib.sha256(response.content).hexdigest() == expected
        assert response.headers["content-type"].startswith(kinds[Path(name).suffix])


def test_nothing_else_of_the_folder_is_served(visitor: httpx2.Client) -> None:
    served = {"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png", "docs-start.js"}
    for path in STATIC.iterdir():
        status = visitor.get(f"/docs/static/{path.name}").status_code
        assert status == (200 if path.name in served else 404), path.name


def test_the_page_keeps_no_key_and_asks_nobody_to_validate(visitor: httpx2.Client) -> None:
    start = visitor.get("/docs/static/docs-start.js").text
    assert "persistAuthorization: false" in start
    assert "validatorUrl: null" in start
    assert 'url: "/openapi.json"' in start


def test_the_served_document_is_the_committed_one(visitor: httpx2.Client) -> None:
    committed = (ROOT / "openapi" / "openapi.json").read_bytes()
    response = visitor.get("/openapi.json")
    assert response.content == committed
    assert response.headers["content-type"] == "application/json"


def test_switched_off_there_is_no_page_and_no_document(api_databases: DatabaseServer) -> None:
    with (
        live_server(api_databases.new_database(), MESHFLOW_DOCS="off") as server,
        server.client() as client,
    ):
        for path in ("/docs", "/openapi.json", "/docs/static/swagger-ui.css"):
            assert client.get(path).status_code == 404
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/whoami").status_code == 200
