"""`meshflow` as a process of its own: started, listened to, told to leave."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

# Nothing here is waited for longer than this; what hangs is killed and the test fails.
PATIENCE_SECONDS = 60
ENTRY = (sys.executable, "-P", "-m", "app.cli.entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True, kw_only=True)
class ServerProcess:
    """A server that has said where it is."""

    process: "subprocess.Popen[str]"
    log: Path
    said: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.said[0].removeprefix("MeshFlow serves on ")

    @property
    def submit_key(self) -> str:
        return self._key("submit key")

    @property
    def approve_key(self) -> str:
        return self._key("approve key")

    @property
    def curl_line(self) -> str:
        return next(line for line in self.said if line.startswith("  curl ")).strip()

    def _key(self, title: str) -> str:
        line = next(line for line in self.said if line.startswith(title))
        return line.removeprefix(title).split()[0]

    def client(self, key: str | None = None) -> httpx2.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def leave(self, sign: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sign)
        return self.process.wait(PATIENCE_SECONDS)


def surroundings(data_dir: Path, **names: str) -> dict[str, str]:
    """An environment without this process's own settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}  # noqa: TID251 - the child needs a PATH
    return {**kept, "HOME": str(data_dir.parent), "MESHFLOW_DATA_DIR": str(data_dir), **names}


def run_command(
    *words: str,
    environ: Mapping[str, str],
    stdin: str = "",
    timeout: int = PATIENCE_SECONDS,
    entry: Sequence[str] = ENTRY,
) -> Finished:
    """One command to its end. It has no terminal, so whatever prompts would be seen to hang."""
    done = subprocess.run(
        [*entry, *words],
        env=dict(environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        start_new_session=True,
    )
    return Finished(code=done.returncode, out=done.stdout, err=done.stderr)


@contextmanager
def starting(
    words: Sequence[str], environ: Mapping[str, str], log: Path, entry: Sequence[str] = ENTRY
) -> Iterator["subprocess.Popen[str]"]:
    """A `serve` process that may not have said anything yet; gone when the block ends."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*entry, "serve", "--port", "0", *words],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def serving(
    *words: str, environ: Mapping[str, str], log: Path, entry: Sequence[str] = ENTRY
) -> Iterator[ServerProcess]:
    """A server that answers, until the block ends."""
    with starting(words, environ, log, entry) as process:
        server = ServerProcess(process=process, log=log)
        assert process.stdout is not None
        last = "  curl " if "--dev" in words and "MESHFLOW_API_KEYS" not in environ else "docs"
        watch = threading.Timer(PATIENCE_SECONDS, process.kill)
        watch.start()
        for line in process.stdout:
            server.said.append(line.rstrip("\n"))
            if line.startswith(last):
                break
        watch.cancel()
        assert server.said, log.read_text(encoding="utf-8")
        yield server
