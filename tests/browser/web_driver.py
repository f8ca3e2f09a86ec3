"""A small client of the W3C WebDriver protocol: what a person does to a page, and what they see."""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PATIENCE_SECONDS = 20
_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """One session: a window of a headless Chromium with a profile of its own."""

    def __init__(self, client: httpx2.Client, session: str) -> None:
        self._client = client
        self._session = session

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._post("url", {"url": url})

    def find(self, css: str) -> "Element":
        """The first visible-or-not element of that selector, waited for."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = self._post("elements", {"using": "css selector", "value": css})
            if found:
                return Element(self, found[0][_ELEMENT])
            if time.monotonic() > until:
                raise AssertionError(f"the page has no {css}")
            time.sleep(0.1)

    def run(self, script: str, *arguments: object) -> Any:
        """What a script in the page returns."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def console(self) -> list[dict[str, Any]]:
        """What the browser's console said since this was last asked."""
        told: list[dict[str, Any]] = self._post("se/log", {"type": "browser"})
        return told

    def network(self) -> list[dict[str, Any]]:
        """The messages of the browser's own network log since this was last asked."""
        told = self._post("se/log", {"type": "performance"})
        return [json.loads(entry["message"])["message"] for entry in told]

    def _post(self, path: str, body: dict[str, object]) -> Any:
        answer = self._client.post(f"/session/{self._session}/{path}", json=body)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise AssertionError(f"{path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value


class Element:
    """Something on the page."""

    def __init__(self, browser: Browser, reference: str) -> None:
        self._browser = browser
        self._reference = reference

    def click(self) -> None:
        """As with a mouse, once it is in view."""
        self._browser.run("arguments[0].scrollIntoView({block: 'center'})", self._told)
        self._browser._post(f"element/{self._reference}/click", {})

    def type(self, text: str) -> None:
        """As with a keyboard, in place of what is there."""
        self._browser._post(f"element/{self._reference}/clear", {})
        self._browser._post(f"element/{self._reference}/value", {"text": text})

    @property
    def text(self) -> str:
        """What a reader sees of it."""
        told: str = self._browser.run("return arguments[0].innerText", self._told)
        return told

    @property
    def _told(self) -> dict[str, str]:
        return {_ELEMENT: self._reference}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser until the block ends. Needs Debian's chromium and chromium-driver."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        tempfile.TemporaryDirectory(prefix="mf-browser-", ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ) as driver,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        try:
            session = _session(client, profile)
            try:
                yield Browser(client, session)
            finally:
                client.delete(f"/session/{session}")
        finally:
            driver.terminate()


def _session(client: httpx2.Client, profile: str) -> str:
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": {
            "binary": "/usr/bin/chromium",
            "args": [*_SWITCHES, f"--user-data-dir={profile}"],
        },
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            made = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
            break
        except httpx2.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    value = made.json()["value"]
    if "sessionId" not in value:
        raise AssertionError(value["message"])
    session: str = value["sessionId"]
    return session
