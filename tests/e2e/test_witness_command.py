"""`meshflow witness`: its files, its refusals to start, and what kill -9 leaves behind.

MESHFLOW_PROOF=1 raises the kills from 8 to 60.
"""

import asyncio
import os
import random  # noqa: TID251 - seeded, so that a failure can be had again
import signal
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from app.sequencing.witness_client import WitnessClient
from tests.e2e.certificates import make_pair
from tests.e2e.server_process import Finished, run_command
from tests.support.small_log import NoteKey, SmallLog, root_of
from tests.support.witness_process import (
    NAME,
    WitnessFiles,
    WitnessProcess,
    new_files,
    witness_process,
)

KILLS = 60 if os.getenv("MESHFLOW_PROOF") == "1" else 8
LOG = SmallLog(NoteKey("logs.test/command"))


@pytest.fixture
def files(tmp_path: Path) -> WitnessFiles:
    made = WitnessFiles(directory=tmp_path)
    made.keygen()
    return made


def refused(files: WitnessFiles, *more: str) -> Finished:
    done = run_command(*files.words([LOG], *more), environ=files.environ, timeout=20)
    assert (done.code, done.out) == (2, ""), done
    assert "Traceback" not in done.err
    return done


def test_keygen_makes_a_private_file_and_prints_the_verifier_key(tmp_path: Path) -> None:
    files = WitnessFiles(directory=tmp_path)
    vkey = files.keygen()
    assert vkey.startswith(f"{NAME}+")
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    secret = files.key.read_text()
    again = files.run("witness", "keygen", "--name", NAME, "--key-file", str(files.key))
    assert again.code == 2
    assert files.key.read_text() == secret
    other = files.run("witness", "keygen", "--name", "a b", "--key-file", str(tmp_path / "k2"))
    assert other.code == 2
    assert not (tmp_path / "k2").exists()


def test_the_memory_outlives_the_process_and_is_private(files: WitnessFiles) -> None:
    with witness_process(files, [LOG]) as witness, witness.client() as client:
        assert client.post("/add-checkpoint", content=LOG.body(0, 5)).status_code == 200
        witness.process.terminate()
        assert witness.process.wait(60) == 0
    assert stat.S_IMODE(files.state.stat().st_mode) == 0o600
    assert [path.name for path in files.directory.iterdir() if "state" in path.name] == ["state"]
    with witness_process(files, [LOG], "--require-state") as witness, witness.client() as client:
        answer = client.post("/add-checkpoint", content=LOG.body(0, 3))
        assert (answer.status_code, answer.content) == (409, b"5\n")
    secret = files.key.read_text().strip().split("+", 4)[4]
    assert secret not in files.log.read_text()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o601])
def test_a_key_file_that_others_may_use_is_refused(files: WitnessFiles, mode: int) -> None:
    files.key.chmod(mode)
    assert "0600" in refused(files).err
    assert not files.state.exists()


@pytest.mark.parametrize("text", ["", "PRIVATE+KEY+a+00000000+AAAA\n", "x" * 9000])
def test_a_key_file_that_holds_no_key_is_refused(files: WitnessFiles, text: str) -> None:
    files.key.write_text(text)
    assert "holds no key" in refused(files).err


def test_a_key_that_was_changed_is_refused(files: WitnessFiles) -> None:
    secret = files.key.read_text()
    files.key.write_text(secret.replace(NAME, "witness.test/w2"))
    refused(files)
    files.key.write_text(secret[:-9] + ("A" if secret[-9] != "A" else "B") + secret[-8:])
    refused(files)


def test_a_missing_state_is_refused_when_one_is_required(files: WitnessFiles) -> None:
    assert "no state file" in refused(files, "--require-state").err
    assert not files.state.exists()


def test_a_state_that_others_may_write_is_refused(files: WitnessFiles) -> None:
    with witness_process(files, [LOG]):
        pass
    files.state.chmod(0o660)
    assert "nobody else can write" in refused(files).err


def test_a_damaged_state_is_refused_and_left_as_it_is(files: WitnessFiles) -> None:
    with witness_process(files, [LOG]) as witness, witness.client() as client:
        assert client.post("/add-checkpoint", content=LOG.body(0, 5)).status_code == 200
    good = files.state.read_bytes()
    for bad in (b"", good[:4096], good[:-4096], b"x" * len(good), bytes(len(good))):
        files.state.write_bytes(bad)
        assert "state file" in refused(files).err
        assert files.state.read_bytes() == bad


@pytest.mark.parametrize("vkey", ["", "x", LOG.key.vkey[:-1], NoteKey("w.test", kind=4).vkey])
def test_a_log_that_is_no_verifier_key_is_refused(files: WitnessFiles, vkey: str) -> None:
    assert "--log" in refused(files, "--log", vkey).err


def test_plain_http_stays_on_this_machine(files: WitnessFiles) -> None:
    assert "loopback only" in refused(files, "--host", "0.0.0.0").err  # noqa: S104 - refused, as it says


def test_it_serves_https_to_the_sequencers_client(files: WitnessFiles) -> None:
    pair = make_pair(files.directory, "tls")
    trust = ssl.create_default_context(cafile=pair.certificate)

    async def no_proof(_old: int) -> Sequence[bytes]:
        return ()

    async def submit(url: str, vkey: str) -> str:
        async with httpx2.AsyncClient(verify=trust, trust_env=False) as http:
            client = WitnessClient(url, vkey, http)
            return await client.add_checkpoint(LOG.note(5), 5, no_proof)

    words = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
    with witness_process(files, [LOG], *words) as witness:
        assert witness.url.startswith("https://127.0.0.1:")
        line = asyncio.run(submit(witness.url, witness.vkey))
        witness.holds(line.encode(), LOG, 5)


def test_nothing_of_the_service_is_loaded(files: WitnessFiles) -> None:
    """It runs where no Postgres and no API are; what is not imported cannot be attacked."""
    source = (
        "import sys\n"
        "from app.cli import entry, web_server, witness_command\n"
        "from app.witness import witness_app\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=files.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "uvicorn" in loaded
    assert loaded.isdisjoint({"asyncpg", "fastapi", "pydantic", "sqlalchemy", "starlette", "re2"})


@dataclass(slots=True)
class Client:
    """Submits growths of several histories until the witness dies; keeps what was cosigned."""

    logs: list[SmallLog]
    chance: random.Random
    cosigned: list[tuple[SmallLog, int, bytes]] = field(default_factory=list)

    def work(self, witness: WitnessProcess, known: int) -> None:
        try:
            with witness.client() as client:
                while True:
                    log = self.chance.choice(self.logs)
                    size = known + self.chance.randint(0, 2)
                    answer = client.post("/add-checkpoint", content=log.body(known, size))
                    if answer.status_code == 200:
                        self.cosigned.append((log, size, answer.content))
                        known = size
                    elif answer.headers["content-type"] == "text/x.tlog.size":
                        known = int(answer.content)
        except httpx2.TransportError:
            return


def remembered(witness: WitnessProcess, logs: list[SmallLog]) -> tuple[int, bytes]:
    """Size and root that the witness holds; its cosignature is checked."""
    note = witness.latest(logs[0])
    if not note:
        return 0, root_of([])
    size = int(note.split(b"\n")[1])
    (log, *_) = [log for log in logs if note.startswith(log.text(size))]
    witness.holds(note.splitlines(keepends=True)[-1], log, size)
    return size, root_of(log.leaves(size))


def test_kill_nine_leaves_no_cosignature_that_the_state_does_not_have() -> None:
    """Killed at random while two histories compete: all that was ever told is one history."""
    chance = random.Random(9)
    key = NoteKey("logs.test/killed")
    logs = [SmallLog(key), SmallLog(key, "second", 3)]
    told: list[tuple[SmallLog, int, bytes]] = []
    with new_files() as files:
        for _ in range(KILLS):
            with witness_process(files, logs[:1]) as witness:
                known, _ = remembered(witness, logs)
                clients = [Client(logs, random.Random(chance.random())) for _ in range(3)]
                threads = [
                    threading.Thread(target=client.work, args=(witness, known))
                    for client in clients
                ]
                killer = threading.Timer(chance.uniform(0.0, 0.6), witness.process.kill)
                killer.start()
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                killer.join()
                assert witness.process.wait(60) == -signal.SIGKILL
            told += [found for client in clients for found in client.cosigned]
            with witness_process(files, logs[:1], "--require-state") as witness:
                size, root = remembered(witness, logs)
                assert size >= max((size for _, size, _ in told), default=0)
                whole = next(log for log in logs if root_of(log.leaves(size)) == root).leaves(size)
                for log, smaller, line in told:
                    witness.holds(line, log, smaller)
                    assert root_of(log.leaves(smaller)) == root_of(whole[:smaller])
    assert told
