"""Swagger UI as people meet it: `python -m tests.browser.docs_page` drives /docs in Chromium.

The page must show every operation, take a key, start a run and read it back, and must neither ask
anybody but its own server for anything nor break its Content-Security-Policy. 0 when it all held.
"""

import json
import sys
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from tests.browser.web_driver import PATIENCE_SECONDS, Browser, chromium
from tests.support.databases import database_server
from tests.support.live_server import KEYS, LiveServer, live_server

_METHODS = frozenset({"get", "post", "put", "delete", "patch"})


def main() -> int:
    """Run the scene."""
    with (
        database_server() as databases,
        live_server(databases.new_database()) as live,
        chromium() as browser,
    ):
        browser.open("about:blank")
        browser.network()  # what the browser's own first page asked for is not of interest
        browser.open(f"{live.url}/docs")
        _shows_every_operation(browser, live)
        _authorize(browser)
        run = json.loads(_executed(browser, "runs-runs_create", body={"task": "What is 6*7?"}))
        read = json.loads(_executed(browser, "runs-runs_get", run_id=run["id"]))
        assert read["id"] == run["id"], read
        _asked_nobody_else(browser, live.url)
        _console_is_clean(browser.console())
    print("Swagger UI shows every operation, starts a run and reads it, under its policy")
    return 0


def _shows_every_operation(browser: Browser, live: LiveServer) -> None:
    with live.client(None) as client:
        paths = client.get("/openapi.json").json()["paths"]
    wanted = {(method, path) for path, item in paths.items() for method in item.keys() & _METHODS}
    browser.find(".opblock")
    shown = browser.run(
        "return [...document.querySelectorAll('.opblock')].map(block => ["
        "block.querySelector('.opblock-summary-method').innerText.toLowerCase(),"
        "block.querySelector('.opblock-summary-path').dataset.path])"
    )
    missing = wanted - {(method, path) for method, path in shown}
    assert not missing, f"not on the page: {sorted(missing)}"


def _authorize(browser: Browser) -> None:
    browser.find(".btn.authorize").click()
    browser.find(".auth-container input").type(KEYS["acme"])
    browser.find(".auth-container .btn.authorize").click()
    browser.find(".auth-container .btn-done").click()


def _executed(
    browser: Browser, operation: str, *, body: object = None, run_id: str | None = None
) -> str:
    """The body of the answer after "Execute"; the page lets one try at once."""
    block = f"#operations-{operation}"
    browser.find(f"{block} .opblock-summary-control").click()
    if body is not None:
        browser.find(f"{block} textarea.body-param__text").type(json.dumps(body))
    if run_id is not None:
        browser.find(f"{block} tr[data-param-name=run_id] input").type(run_id)
    browser.find(f"{block} .btn.execute").click()
    answer = browser.find(f"{block} .live-responses-table tr.response .response-col_status")
    until = time.monotonic() + PATIENCE_SECONDS
    while not answer.text.strip() and time.monotonic() < until:
        time.sleep(0.1)
    assert answer.text.split()[0] in {"200", "202"}, answer.text
    return browser.find(
        f"{block} .live-responses-table tr.response .response-col_description pre"
    ).text


def _asked_nobody_else(browser: Browser, url: str) -> None:
    own = urlsplit(url).netloc
    asked = [
        message["params"]["request"]["url"]
        for message in browser.network()
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked, "the browser told of no request"
    others = {
        text for text in asked if not text.startswith("data:") and own != urlsplit(text).netloc
    }
    assert not others, f"the page asked others: {sorted(others)}"


def _console_is_clean(told: Iterable[dict[str, object]]) -> None:
    bad = [entry["message"] for entry in told if entry["level"] in {"SEVERE", "WARNING"}]
    assert not bad, f"the browser complained: {bad}"


if __name__ == "__main__":
    sys.exit(main())
