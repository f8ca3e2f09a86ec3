"""`meshflow witness serve` as a process of its own, on a free port of the loopback."""

import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.e2e.server_process import ENTRY, PATIENCE_SECONDS, Finished, run_command, surroundings
from tests.support.other_account import command
from tests.support.small_log import SmallLog, cosigned_at

NAME = "witness.test/w1"


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessFiles:
    """What a witness keeps: its key and its memory; `account`: the user that it is, if another."""

    directory: Path
    account: int | None = None

    @property
    def key(self) -> Path:
        return self.directory / "witness.key"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> Path:
        return self.directory / "stderr"

    @property
    def environ(self) -> dict[str, str]:
        return surroundings(self.directory / "data")

    def words(self, logs: Sequence[SmallLog], *more: str) -> list[str]:
        watched = [word for log in logs for word in ("--log", log.key.vkey)]
        files = ["--state", str(self.state), "--key-file", str(self.key)]
        return ["witness", "serve", "--port", "0", *files, *watched, *more]

    @property
    def entry(self) -> tuple[str, ...]:
        return ENTRY if self.account is None else command(self.account)

    def run(self, *words: str) -> Finished:
        return run_command(*words, environ=self.environ, entry=self.entry)

    def keygen(self) -> str:
        done = self.run("witness", "keygen", "--name", NAME, "--key-file", str(self.key))
        assert done.code == 0, done.err
        return done.out.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessProcess:
    """A witness that answers."""

    process: "subprocess.Popen[str]"
    url: str
    vkey: str
    files: WitnessFiles

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=PATIENCE_SECONDS, trust_env=False)

    def latest(self, log: SmallLog) -> bytes:
        with self.client() as client:
            return client.get("/checkpoint", params={"origin": log.origin}).content

    def holds(self, line: bytes, log: SmallLog, size: int) -> int:
        """The time of a cosignature over the log's checkpoint; AssertionError if it is none."""
        return cosigned_at(line, log.text(size), self.vkey)


@contextmanager
def new_files() -> Iterator[WitnessFiles]:
    """A key and no state yet."""
    with tempfile.TemporaryDirectory(prefix="mf-witness-") as made:
        files = WitnessFiles(directory=Path(made))
        files.keygen()
        yield files


@contextmanager
def witness_process(
    files: WitnessFiles, logs: Sequence[SmallLog], *more: str
) -> Iterator[WitnessProcess]:
    """Serve until the block ends; what is still alive then is killed."""
    with files.log.open("ab") as errors:
        process = subprocess.Popen(
            [*files.entry, *files.words(logs, *more)],
            env=files.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    watch = threading.Timer(PATIENCE_SECONDS, process.kill)
    watch.start()
    try:
        said = [process.stdout.readline().split() for _ in range(2)]
        assert all(said), files.log.read_text(encoding="utf-8")
        watch.cancel()
        yield WitnessProcess(process=process, url=said[0][-1], vkey=said[1][-1], files=files)
    finally:
        watch.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_SECONDS)
        process.stdout.close()
