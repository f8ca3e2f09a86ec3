"""Honest trouble: crashes, erasures, rotations; after each of them clean reads of many runs.

Server and sequencer are processes of their own and are killed with SIGKILL while runs are under
way. Whatever is not read as it was, or not as valid, is a false alarm.
"""

import asyncio
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random  # noqa: TID251 - seeded positions

from bench.tampering.bundles import INCOMPLETE, verified
from bench.tampering.campaign import Tally, told
from bench.tampering.judge import Answer, Judge
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import (
    TENANTS,
    Scene,
    ended,
    machinery,
    process_environ,
    submitted,
)
from tests.e2e.server_process import ENTRY, PATIENCE_SECONDS, run_command, serving
from tests.support.databases import Roles, connect

ROUNDS = {True: 9, False: 1}  # of each kind of trouble
READ = {True: 24, False: 3}  # runs that are read after each
EXPORTED = {True: 4, False: 2}  # and exported after a rotation of a key that bundles rest on
_FIRST_RUNS = {True: 4, False: 2}  # of each tenant, before any trouble
_OVER = frozenset({"succeeded", "failed", "cancelled", "interrupted", "blocked"})


@dataclass(slots=True, kw_only=True)
class Trouble:
    """A deployment of processes, its runs, and what was read of them."""

    stage: Scene
    environ: dict[str, str]
    server: "subprocess.Popen[str]"
    sequencer: "subprocess.Popen[bytes]"
    before: dict[RunRef, Answer] = field(default_factory=dict)

    @property
    def rng(self) -> Random:
        """Seeded choice."""
        return self.stage.rng

    def run(self, *words: str) -> None:
        """One command of the operator's."""
        done = run_command(*words, environ=self.environ)
        assert done.code == 0, (words, done.err)


def _environ(directory: Path, roles: Roles) -> dict[str, str]:
    return process_environ(
        directory,
        roles,
        MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer,
        MESHFLOW_ERASER_DATABASE_URL=roles.eraser,
        MESHFLOW_ERASURE_KEY_FILE=str(directory / "erasure" / "key"),
    )


@asynccontextmanager
async def _up(stage: Scene, before: dict[RunRef, Answer]) -> AsyncIterator[Trouble]:
    """Server and sequencer, until the block ends or they are killed."""
    environ = _environ(stage.directory, stage.roles)
    log = stage.directory / "sequencer.log"
    with ExitStack() as stack:
        server = stack.enter_context(serving(environ=environ, log=stage.directory / "server.log"))
        sequencer = stack.enter_context(_sequencer(environ, log))
        stage.url = server.url
        yield Trouble(
            stage=stage,
            environ=environ,
            server=server.process,
            sequencer=sequencer,
            before=before,
        )


@contextmanager
def _sequencer(environ: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as errors:
        process = subprocess.Popen([*ENTRY, "sequencer"], env=environ, stdout=errors, stderr=errors)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE_SECONDS)


async def crash(trouble: Trouble) -> None:
    """Runs are under way; the server dies, and often the sequencer, too."""
    stage, number = trouble.stage, trouble.rng.randrange(1000)
    runs = [await submitted(stage, tenant, number) for tenant in TENANTS]
    stage.runs += runs
    await asyncio.sleep(trouble.rng.random() * 0.4)
    trouble.server.send_signal(signal.SIGKILL)
    if trouble.rng.random() < 0.7:
        trouble.sequencer.send_signal(signal.SIGKILL)


async def erasure(trouble: Trouble) -> None:
    """An ended run loses fields, or everything, on request."""
    stage = trouble.stage
    whole = [run for run in stage.runs if not run.erased and await ended(stage, run)]
    run = trouble.rng.choice(whole)
    erased = trouble.rng.choice(("anonymized", "deleted"))
    after = await stage.erase(run, erased)
    stage.runs = [after if one == run else one for one in stage.runs]
    trouble.before.pop(run, None)


async def log_key(trouble: Trouble) -> None:
    """The next log key."""
    await asyncio.to_thread(trouble.run, "ledger", "rotate-key", "log")


async def erasure_key(trouble: Trouble) -> None:
    """The next erasure key, while server and sequencer go on."""
    await asyncio.to_thread(trouble.run, "ledger", "rotate-key", "erasure")


async def content_keys(trouble: Trouble) -> None:
    """Every run key under the next KEK; old ones are destroyed."""
    await asyncio.to_thread(trouble.run, "eraser", "--once")


async def enrolment_key(stage: Scene) -> None:
    """The next enrolment key, while nobody is there: who was killed was so an hour ago."""
    await stage.superuser.execute(
        "UPDATE writer_key SET seen_at = seen_at - interval '1 hour' WHERE retired_at IS NULL"
    )
    environ = _environ(stage.directory, stage.roles)
    words = ("ledger", "rotate-key", "enrolment")
    done = await asyncio.to_thread(partial(run_command, *words, environ=environ))
    assert done.code == 0, (words, done.err)


_KINDS: tuple[tuple[str, Callable[[Trouble], Awaitable[None]]], ...] = (
    ("a crash of the server, or of server and sequencer", crash),
    ("an authorised erasure", erasure),
    ("a rotation of the log key", log_key),
    ("a rotation of the content keys (KEK)", content_keys),
    ("a rotation of the erasure key", erasure_key),
)
_ENROLMENT = "a rotation of the enrolment key"


async def upheave(roles: Roles, seed: int, tally: Tally, *, full: bool) -> None:
    """Trouble of every kind in turn, and clean reads after each."""
    with tempfile.TemporaryDirectory(prefix="mf-upheaval-") as made:
        directory = Path(made)
        policy = directory / "policy"  # as pinned before any rotation
        (directory / "erasure").mkdir(mode=0o700)
        sql = await connect(roles.superuser)
        try:
            stage = Scene(
                roles=roles,
                directory=directory,
                url="",
                superuser=sql,
                rng=Random(seed),
                has=await machinery(sql),
                parts=2,
            )
            before: dict[RunRef, Answer] = {}
            async with _up(stage, before):
                for number in range(_FIRST_RUNS[full]):
                    stage.runs += [
                        await submitted(stage, tenant, number, wait=True) for tenant in TENANTS
                    ]
                await _read(stage, before, tally, "nothing, or an attack that was taken back", 99)
                async with stage.client(TENANTS[0]) as http:
                    policy.write_bytes((await http.get("/v1/ledger/policy")).content)
            for number in range(ROUNDS[full]):
                if number and tally.is_over:
                    break
                for name, do in _KINDS:
                    async with _up(stage, before) as trouble:
                        await do(trouble)
                        if do is not crash:
                            await _read(stage, before, tally, name, READ[full])
                        if do is erasure_key:
                            await _export(stage, policy, tally, name, EXPORTED[full])
                    if do is crash:
                        async with _up(stage, before):
                            await _read(stage, before, tally, name, READ[full])
                    told(f"after {name}")
                await enrolment_key(stage)
                async with _up(stage, before):
                    await _read(stage, before, tally, _ENROLMENT, READ[full])
                    await _export(stage, policy, tally, _ENROLMENT, EXPORTED[full])
                told(f"after {_ENROLMENT}")
        finally:
            await sql.close()


async def _read(
    stage: Scene, before: dict[RunRef, Answer], tally: Tally, name: str, most: int
) -> None:
    """Clean reads; those of runs that are over have to say what they said before."""
    judge = Judge(stage)
    newest = stage.runs[-len(TENANTS) :]
    older = stage.runs[: -len(TENANTS)]
    chosen = [*newest, *stage.rng.sample(older, min(len(older), most))][:most]
    try:
        for run in chosen:
            now = await judge.read(run)
            tally.controls[name] += 1
            was = before.get(run)
            if not now.is_honest(run) or (was is not None and now.content != was.content):
                said = now.verification[1]
                tally.false_alarms.append(
                    f"after {name}: {run.public} {now.run[0]} {now.entries[0]} {said}"
                )
            elif run.erased == "deleted" or now.run[1]["status"] in _OVER:
                before[run] = now
    finally:
        await judge.close()


async def _export(stage: Scene, policy: Path, tally: Tally, name: str, most: int) -> None:
    """Bundles of runs that are over, held offline against what was pinned before."""
    there = [run for run in stage.runs if run.erased != "deleted" and await ended(stage, run)]
    for run in stage.rng.sample(there, min(len(there), most)):
        found = await asyncio.to_thread(verified, await _bundle(stage, run), policy)
        tally.controls[f"{name}, exported and verified offline"] += 1
        if found.code != INCOMPLETE:  # no witness is here: it says that, and nothing worse
            tally.false_alarms.append(f"after {name}: an honest export of {run.public}: {found}")


async def _bundle(stage: Scene, run: RunRef) -> bytes:
    """As soon as a checkpoint covers what it rests on."""
    async with asyncio.timeout(PATIENCE_SECONDS), stage.client(run.tenant) as http:
        while True:
            answer = await http.get(f"/v1/runs/{run.public}/bundle")
            if answer.status_code == 200:
                return answer.content
            assert answer.json()["code"] == "not-sequenced", answer.text
            await asyncio.sleep(0.2)
