"""The witnessed deployment after a rotation of its log key: runs of both times, bundles, a reader.

Made in a copy with keys, data and a witness of its own. Attackers then work on the rows while a
server without a sequencer answers; whoever verifies has a policy that was pinned before the
rotation, and the bundles that the honest deployment exported.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

from bench.tampering import undo
from bench.tampering.attack import Act, AttackClass, Trial
from bench.tampering.bundles import Verified, verified
from bench.tampering.hands import hands
from bench.tampering.judge import Judge
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import (
    TENANTS,
    Scene,
    erase_some,
    leave_fresh,
    populate,
    process_environ,
    submitted,
)
from bench.tampering.witnessed import (
    Deployment,
    at_work,
    copied,
    copy_database,
    drop_database,
    started,
)
from tests.e2e.server_process import run_command, serving
from tests.support.databases import Roles, connect
from tests.support.small_log import NoteKey, SmallLog
from tests.support.witness_process import WitnessProcess, witness_process


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What attackers and readers of it share."""

    stage: Scene
    judge: Judge
    deployment: Deployment
    witness: WitnessProcess
    kept: Roles  # the rows as they were before anybody attacked, to be copied
    policy: Path  # pinned before the rotation
    bundles: dict[RunRef, bytes]  # of every run that is there, exported honestly
    early: tuple[RunRef, ...]  # runs of before the rotation
    # Runs of pods whose clocks are wrong, and by how many seconds.
    wrong: list[tuple[RunRef, int]] = field(default_factory=list)

    @property
    def seeds(self) -> tuple[bytes, bytes]:
        """The log key of before and of after."""
        found = [self.deployment.directory / "keys" / "signing" / f"log.{n}" for n in (1, 2)]
        return found[0].read_bytes()[:32], found[1].read_bytes()[:32]

    @property
    def newer(self) -> list[RunRef]:
        """Runs of after the rotation, whole."""
        return [run for run in self.bundles if run not in self.early and not run.erased]

    async def verify(self, tar: bytes, *words: str, trusting: bool = False) -> Verified:
        """What `meshflow verify-bundle` says with the pinned policy, or to whom has none."""
        return await asyncio.to_thread(verified, tar, None if trusting else self.policy, *words)

    async def judged_apart(self, one: AttackClass, name: str, act: Act) -> Trial:
        """One attack on a copy of the rows, and a server that is started on it afterwards.

        A server appends to the operator log when it starts, so what was cut there cannot be put
        back under it.
        """
        roles = await copy_database(self.kept, f"trial_{token_hex(5)}")
        try:
            sql = await connect(roles.superuser)
            try:
                await undo.set_guards(sql, on=False)
                stage = replace(self.stage, roles=roles, superuser=sql)
                async with hands(stage) as attacker:
                    deed = await act(attacker)
                await undo.set_guards(sql, on=True)
            finally:
                await sql.close()
            with started(self.deployment, roles, self.witness, alone=True) as url:
                apart = Judge(replace(stage, url=url), self.judge.before, self.judge.second)
                try:
                    return await apart.judged(one, name, deed)
                finally:
                    await apart.close()
        finally:
            await drop_database(roles)


def _own(deployment: Deployment) -> Deployment:
    """The same deployment with files of its own, so that its rotation is nobody else's."""
    directory = deployment.directory.parent / f"{deployment.directory.name}-rotated"
    for name in ("data", "keys", "erasure"):
        shutil.copytree(deployment.directory / name, directory / name)
    return replace(deployment, directory=directory)


def _watched(deployment: Deployment) -> list[SmallLog]:
    """The operator log under the key of before, and under that of after once there is one."""
    keys = deployment.directory / "keys" / "signing"
    seeds = [found.read_bytes()[:32] for found in sorted(keys.glob("log.*"))]
    return [SmallLog(NoteKey(deployment.origin, seed=seed)) for seed in seeds]


def rotate_log_key(stage: Scene) -> None:
    """`meshflow ledger rotate-key log`, which waits until the leader has recorded the change."""
    environ = process_environ(stage.directory, stage.roles)
    done = run_command("ledger", "rotate-key", "log", environ=environ)
    assert done.code == 0, done.err


async def _with_wrong_clocks(stage: Scene, pods: int) -> list[tuple[RunRef, int]]:
    """A run of each tenant on each of so many pods, every other one ahead of the time."""
    found: list[tuple[RunRef, int]] = []
    for number in range(pods):
        away = stage.rng.randrange(1200, 86_400) * (1 if number % 2 else -1)
        with serving(
            environ=process_environ(stage.directory, stage.roles),
            log=stage.directory / "pod.log",
            entry=(sys.executable, "-m", "bench.tampering.wrong_clock", str(away)),
        ) as pod:
            there = replace(stage, url=pod.url, parts=1)
            found += [(await submitted(there, tenant, 1, wait=True), away) for tenant in TENANTS]
    return found


async def _policy(stage: Scene) -> str:
    async with stage.client("alpha") as http:
        answer = await http.get("/v1/ledger/policy")
    assert answer.status_code == 200, answer.text
    return answer.text


async def _bundle(stage: Scene, run: RunRef) -> bytes:
    async with stage.client(run.tenant) as http:
        answer = await http.get(f"/v1/runs/{run.public}/bundle")
    assert answer.status_code == 200, answer.text
    return answer.content


@asynccontextmanager
async def rotated(deployment: Deployment, *, each: int, pods: int) -> AsyncIterator[Rotated]:
    """Rotate, work on, erase, export; then serve the rows to be attacked."""
    assert deployment.late is not None
    own = _own(deployment)
    try:
        async with copied(own, deployment.late, deployment.late) as (roles, files):
            policy = own.directory / "policy"
            with witness_process(files, _watched(own)) as witness:
                async with at_work(own, roles, witness) as stage:
                    policy.write_text(await _policy(stage), encoding="utf-8")
                    await asyncio.to_thread(rotate_log_key, stage)
            with witness_process(files, _watched(own)) as witness:
                async with at_work(own, roles, witness) as stage:
                    await populate(stage, each, 0)
                    await erase_some(stage)
                    runs = stage.runs
                    wrong = await _with_wrong_clocks(stage, pods)
                kept = await copy_database(roles, f"rotated_{token_hex(4)}")
                sql = await connect(roles.superuser)
                try:
                    with started(own, roles, witness, alone=True) as url:
                        stage = await own.stage(sql, roles, url)
                        stage.runs = [*deployment.late.runs, *runs]
                        found = await _exported(stage, own, witness, policy, kept)
                        found.wrong.extend(wrong)
                        await leave_fresh(stage)
                        await found.judge.remember(run for run in stage.runs if run.fresh)
                        await undo.install(sql)
                        yield found
                        await stage.close_all()
                finally:
                    await sql.close()
                    await drop_database(kept)
    finally:
        shutil.rmtree(own.directory, ignore_errors=True)


async def _exported(
    stage: Scene, own: Deployment, witness: WitnessProcess, policy: Path, kept: Roles
) -> Rotated:
    judge = Judge(stage)
    await judge.remember(stage.runs)
    there = [run for run in stage.runs if run.erased != "deleted"]
    assert own.late is not None
    return Rotated(
        stage=stage,
        judge=judge,
        deployment=own,
        witness=witness,
        kept=kept,
        policy=policy,
        bundles={run: await _bundle(stage, run) for run in there},
        early=own.late.runs,
    )
