"""Swagger UI in a real browser: under its policy it renders, authorizes, executes, and asks nobody.

`python -m tests.browser.docs_page`: a server, chromedriver and Chromium, each a process of its own.
"""

import json
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.browser.web_driver import Browser, BrowserMissingError, browser
from tests.e2e.server_process import ServerProcess, serving, surroundings

# Before any script of the page: what the policy refuses is written down, whoever asked for it.
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.refused.push(`${event.effectiveDirective} ${event.blockedURI}`));
"""
SHOWN = """
return [...document.querySelectorAll(".opblock")].map((block) =>
  block.querySelector(".opblock-summary-method").textContent.toLowerCase() + " " +
  block.querySelector(".opblock-summary-path").dataset.path);
"""
KEPT = "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie]);"
ASK_ELSEWHERE = """
return fetch(arguments[0]).then(() => "answered", () => "refused");
"""
INLINE = """
const made = document.createElement("script");
made.textContent = "window.hasRunInline = true";
document.body.append(made);
return window.hasRunInline === true;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocsPage:
    """The page, and everything that was seen of it so far."""

    page: Browser
    server: ServerProcess
    requested: list[str] = field(default_factory=list)

    def check(self) -> None:
        """AssertionError on the first thing that is not as it should be."""
        self.page.open("about:blank")
        self.page.requested()  # the browser's own first page is not ours
        self.page.at_every_start(WATCH)
        self.page.open(f"{self.server.url}/docs")
        print(f"{self._check_rendered()} operations rendered")
        self._authorize()
        self._check_run()
        print("authorized, executed POST and GET of a run")
        self._check_quiet()
        self._check_no_key_kept()
        print(f"{len(self.requested)} requests, all to the server; no violation, no console entry")
        self._check_policy_holds()
        print("another origin and an inline script are refused by the policy")

    def _check_rendered(self) -> int:
        self.page.find("//*[@class='opblock-summary-path']")
        with self.server.client() as client:
            paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
        told = sorted(f"{verb} {path}" for path, verbs in paths.items() for verb in verbs)
        shown = sorted(self.page.run(SHOWN))
        assert shown == told, f"shown {shown}, told {told}"
        errors = self.page.run("return document.querySelectorAll('.errors-wrapper').length")
        assert errors == 0, "Swagger UI shows errors of the document"
        return len(told)

    def _authorize(self) -> None:
        form = "//form[.//code[text()='HTTPBearer']]"
        self.page.click("//div[@class='auth-wrapper']/button[contains(@class,'authorize')]")
        self.page.write(f"{form}//input", self.server.submit_key)
        self.page.click(f"{form}//button[text()='Authorize']")
        self.page.find(f"{form}//button[text()='Logout']")
        self.page.click(f"{form}//button[text()='Close']")

    def _check_run(self) -> None:
        """The example that stands there makes a run, and the page shows it."""
        post = self._opened("runs_create")
        field_of_body = f"{post}//textarea[contains(@class,'body-param__text')]"
        asked = json.loads(self.page.text(field_of_body))
        made = self._executed(post, 202)
        got = self._opened("runs_get")
        self.page.write(f"{got}//tr[@data-param-name='run_id']//input", made["id"])
        run = self._executed(got, 200)
        assert run["id"] == made["id"], run
        assert run["task"]["instructions"] == asked["instructions"], run

    def _opened(self, operation: str) -> str:
        """Where the operation is, now that it is open."""
        block = f"//div[contains(@class,'opblock') and contains(@id,'-{operation}')]"
        self.page.click(f"{block}//button[@class='opblock-summary-control']")
        return block

    def _executed(self, block: str, status: int) -> dict[str, Any]:
        """The body of the answer, which has to have this status."""
        self.page.click(f"{block}//button[contains(@class,'execute')]")
        row = f"{block}//table[contains(@class,'live-responses-table')]//tr[@class='response']"
        shown = self.page.text(f"{row}/td[contains(@class,'response-col_status')]")
        assert shown.split()[0] == str(status), f"{shown}: {self.page.text(row)}"
        body: dict[str, Any] = json.loads(self.page.text(f"({row}//code)[1]"))
        return body

    def _check_quiet(self) -> None:
        assert self.page.run("return window.refused") == []
        told = [entry["message"] for entry in self.page.log("browser")]
        assert told == [], told
        self.requested.extend(self.page.requested())
        places = {_origin(url) for url in self.requested if not url.startswith("data:")}
        assert places == {self.server.url}, places

    def _check_no_key_kept(self) -> None:
        assert self.server.submit_key not in self.page.run(KEPT)

    def _check_policy_holds(self) -> None:
        """That nothing was refused says something only where something would be."""
        with _elsewhere() as (url, listener):
            assert self.page.run(ASK_ELSEWHERE, url) == "refused"
            assert not _was_asked(listener), "a request left the origin"
        assert not self.page.run(INLINE), "an inline script ran"
        refused = self.page.run("return window.refused")
        assert refused == [f"connect-src {url}", "script-src-elem inline"], refused
        assert len(self.page.log("browser")) >= len(refused), "the console is not heard"


def _origin(url: str) -> str:
    place = urlsplit(url)
    return f"{place.scheme}://{place.netloc}"


@contextmanager
def _elsewhere() -> Iterator[tuple[str, socket.socket]]:
    """Another origin of this machine: its address, and where a request would be seen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", listener


def _was_asked(listener: socket.socket) -> bool:
    listener.settimeout(0)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def main() -> int:
    """0 when the page is as it should be, 1 when the browser is missing; raises otherwise."""
    with tempfile.TemporaryDirectory(prefix="mf-docs-page-") as made:
        directory = Path(made)
        directory.chmod(0o711)  # the embedded PostgreSQL may be another user's, and has to get in
        environ = surroundings(directory / "data")
        try:
            with (
                browser(directory / "browser") as page,
                serving("--dev", environ=environ, log=directory / "log") as server,
            ):
                DocsPage(page=page, server=server).check()
        except BrowserMissingError as error:
            print(f"{error}: install Debian's chromium and chromium-driver", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
