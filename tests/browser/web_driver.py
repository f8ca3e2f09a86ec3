"""A real Chromium, headless, over the W3C WebDriver protocol that Debian's chromedriver speaks."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

# An element is waited for so long; what hangs longer fails.
PATIENCE_SECONDS = 20
CALL_SECONDS = 60
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver §12.1: the web element identifier
_STARTED = re.compile(r"started successfully on port ([0-9]+)")
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1400,1000",
)


class BrowserMissingError(Exception):
    """The tools of this lane are not installed."""


class WebDriverError(Exception):
    """The browser could not do what it was told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """One window. Elements are found by XPath and waited for."""

    calls: httpx2.Client
    session: str

    def open(self, url: str) -> None:
        """Go there and wait until the page has loaded."""
        self._post("/url", {"url": url})

    def find(self, xpath: str) -> str:
        """The first such element, which may come a little later. WebDriverError when none does."""
        found: str = self._post("/element", {"using": "xpath", "value": xpath})[_ELEMENT]
        return found

    def click(self, xpath: str) -> None:
        """As a mouse does: what is hidden or covered cannot be clicked."""
        self._post(f"/element/{self.find(xpath)}/click", {})

    def write(self, xpath: str, text: str) -> None:
        """Type the text in the place of what stands there."""
        element = self.find(xpath)
        self._post(f"/element/{element}/clear", {})
        self._post(f"/element/{element}/value", {"text": text})

    def text(self, xpath: str) -> str:
        """What a reader sees of it."""
        return str(self._call("GET", f"/element/{self.find(xpath)}/text"))

    def run(self, script: str, *arguments: object) -> Any:
        """What the function body returns in the page; a promise is waited for."""
        return self._post("/execute/sync", {"script": script, "args": [*arguments]})

    def at_every_start(self, script: str) -> None:
        """Run it in every page from now on, before the page's own scripts."""
        words = {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": script}}
        self._post("/goog/cdp/execute", words)

    def log(self, kind: str) -> Sequence[Mapping[str, Any]]:
        """What was written into this log since the last look."""
        entries: Sequence[Mapping[str, Any]] = self._post("/se/log", {"type": kind})
        return entries

    def requested(self) -> list[str]:
        """The addresses that were asked for since the last look, by pages and by the browser."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        wanted = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in wanted]

    def _post(self, path: str, body: Mapping[str, object]) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        answer = self.calls.request(method, f"/session/{self.session}{path}", json=body)
        return _value(answer)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `profile`; gone when the block ends."""
    profile.mkdir(mode=0o700, exist_ok=True)
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        raise BrowserMissingError(f"{' and '.join(missing)} missing")
    with (
        _driver(profile) as url,
        httpx2.Client(base_url=url, timeout=CALL_SECONDS, trust_env=False) as calls,
    ):
        made = _value(
            calls.post("/session", json={"capabilities": {"alwaysMatch": _wanted(profile)}})
        )
        try:
            yield Browser(calls=calls, session=made["sessionId"])
        finally:
            calls.delete(f"/session/{made['sessionId']}")


def _wanted(profile: Path) -> Mapping[str, object]:
    flags = [*_FLAGS, f"--user-data-dir={profile / 'profile'}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to start as root with it
    return {
        "browserName": "chrome",
        "timeouts": {"implicit": PATIENCE_SECONDS * 1000},
        "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": flags},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }


@contextmanager
def _driver(home: Path) -> Iterator[str]:
    """chromedriver on a port of its own choice. Its group ends with it: no browser stays."""
    process = subprocess.Popen(
        ["chromedriver", "--port=0"],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},  # noqa: TID251 - the child needs a PATH
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        started = next(filter(None, map(_STARTED.search, process.stdout)), None)
        if started is None:
            raise WebDriverError("chromedriver did not start")
        yield f"http://127.0.0.1:{started[1]}"
    finally:
        process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(CALL_SECONDS)


def _value(answer: httpx2.Response) -> Any:
    value = answer.json()["value"]
    if answer.status_code != httpx2.codes.OK:
        raise WebDriverError(f"{value['error']}: {value['message'].splitlines()[0]}")
    return value
