"""Runs the classes that need a sequencer and a witness, and honest restarts between them."""

import asyncio

import asyncpg

from app.embedded.server_account import choose_server_account
from bench.tampering import undo
from bench.tampering.attack import AttackClass, Deed, Outcome, Told, Trial
from bench.tampering.bundle_attacks import CLASSES as BUNDLES
from bench.tampering.bundle_attacks import bundle_trial, soon_after
from bench.tampering.bundles import WHOLE, members_of
from bench.tampering.campaign import (
    FULL_TRIALS,
    Tally,
    control,
    each_of,
    run_classes,
    told,
)
from bench.tampering.freeze_attacks import CLASSES as FREEZES
from bench.tampering.hands import Hands
from bench.tampering.history_attacks import CLASSES as HISTORIES
from bench.tampering.history_attacks import CONTROL, history_trial
from bench.tampering.key_attacks import CLASSES as KEYS
from bench.tampering.note_attacks import CLASSES as NOTES
from bench.tampering.note_attacks import PROOFS, Word, note_trial, proof_trials, small_log
from bench.tampering.rotated import Rotated, rotated
from bench.tampering.run_ref import RunRef
from bench.tampering.witnessed import Deployment, copied, cosigned
from tests.support.databases import connect
from tests.support.witness_process import WitnessFiles, witness_process

RESTARTS = {True: 20, False: 1}
PODS = {True: 10, False: 2}  # with wrong clocks, for class 47
_D4_D6 = frozenset({"D4", "D6"})


async def _elsewhere(_attacker: Hands) -> Deed:
    raise AssertionError("this class is run by its own campaign")


CLOCKS = AttackClass(
    number=47,
    title="the clock of one pod is wrong",
    who="ops",
    named=frozenset({"D2"}),
    acts=(("behind", _elsewhere), ("ahead", _elsewhere)),
)


def rows() -> list[AttackClass]:
    """The classes as rows of the table."""
    histories = [
        AttackClass(
            number=one.number,
            title=one.title,
            who=one.who,
            named=_D4_D6 if one.number == 13 else frozenset({"D6"}),
            acts=tuple((name, _elsewhere) for name, _ in one.acts),
            waits={name: frozenset({"continuity"}) for name in one.waits},
            needs=frozenset({"log"}),
        )
        for one in HISTORIES
    ]
    doors = [
        AttackClass(
            number=one.number,
            title=one.title,
            who=one.who,
            named=frozenset({one.named}) | ({"D6"} if one.number == PROOFS else set()),
            acts=tuple((name, _elsewhere) for name, _ in one.acts),
            needs=frozenset({"log"}),
        )
        for one in (*NOTES, *BUNDLES)
    ]
    by_number = {one.number: one for one in (*histories, *doors, *FREEZES, *KEYS, CLOCKS)}
    return list(by_number.values())


async def run_histories(
    deployment: Deployment, tally: Tally, *, full: bool, share: tuple[int, int]
) -> None:
    """Notes at the witness's door, rewritten histories, and restarts that nobody attacked."""
    number, shares = share
    if number == 0:
        await _notes(deployment, tally, full=full)
    wanted = HISTORIES[number::shares]
    each = {one.number: max(each_of(len(one.acts), full=full), 1) for one in wanted}
    most = max(each.values())
    for turn in range(most):
        if turn and tally.is_over:
            break
        for one in wanted:
            acts = one.acts if turn < each[one.number] else ()
            for name, do in acts:
                tally.trials.append(await history_trial(deployment, one, name, do))
        if turn % (most // (RESTARTS[full] // shares) or 1) == 0:
            await _restart(deployment, tally)
        told(f"{wanted[0].number} to {wanted[-1].number}: round {turn + 1} of {most}")


async def _restart(deployment: Deployment, tally: Tally) -> None:
    name, do = CONTROL.acts[0]
    trial = await history_trial(deployment, CONTROL, name, do)
    tally.controls["a restart, with a witness"] += 1
    if trial.outcome is not Outcome.UNDETECTED:
        tally.false_alarms.append(f"after a restart: {trial.told}")


async def _notes(deployment: Deployment, tally: Tally, *, full: bool) -> None:
    """The classes about notes and proofs, at the door of a witness that remembers the log."""
    assert deployment.late is not None
    async with copied(deployment, deployment.late, deployment.late) as (copy, files):
        sql = await connect(copy.superuser)
        try:
            row = await sql.fetchrow(
                "SELECT size, root FROM checkpoint WHERE tenant_id = $1 AND size = $2",
                deployment.operator,
                await cosigned(sql),
            )
            await _keep_out(sql, files)
        finally:
            await sql.close()
        word = Word(
            origin=deployment.origin,
            size=row["size"],
            root=row["root"],
            seed=deployment.log_seed,
        )
        with witness_process(files, [deployment.watched, small_log()]) as witness:
            for one in NOTES:
                for name, do in one.acts:
                    for _ in range(each_of(len(one.acts), full=full)):
                        trial = await note_trial(deployment, witness, word, one, name, do)
                        tally.trials.append(trial)
            count = FULL_TRIALS if full else 2
            tally.trials += await proof_trials(witness, deployment.rng, count)
            tally.controls["a proof that holds, shown to the witness"] += count


async def _keep_out(sql: asyncpg.Connection, files: WitnessFiles) -> None:
    """The database's superuser and its account do not get at the witness's key and memory.

    AssertionError when they do; where the bench cannot start a witness as another user nothing is
    asked, and the table says so.
    """
    if files.account is None:
        return
    for path in (files.key, files.state):
        for words in (f"SELECT pg_read_binary_file('{path}')", f"COPY (SELECT 1) TO '{path}'"):
            try:
                await sql.execute(words)
            except asyncpg.PostgresError:
                continue
            raise AssertionError(f"the database's superuser may do this: {words}")
        done = await asyncio.create_subprocess_exec(
            "/bin/cat",
            str(path),
            user=choose_server_account().uid,
            extra_groups=[],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        shown, _ = await done.communicate()
        assert path.read_bytes()
        assert done.returncode != 0, path
        assert not shown


async def run_rotated(deployment: Deployment, tally: Tally, *, full: bool) -> None:
    """Keys at the wrong time, old states, exports in a holder's hands; honest exports between."""
    async with rotated(deployment, each=2 if full else 1, pods=PODS[full]) as made:
        await _clocks(made, tally)
        shared = [*FREEZES, *(one for one in KEYS if not one.own_server)]
        await run_classes(made.stage, made.judge, shared, tally, full=full)
        await undo.set_guards(made.stage.superuser, on=True)
        await control(made.judge, made.stage.runs, tally)
        await _bundles(made, tally, full=full)
        for one in (one for one in KEYS if one.own_server):
            for number in range(each_of(len(one.acts), full=full)):
                if number and tally.is_over:
                    break
                for name, act in one.acts:
                    tally.trials.append(await made.judged_apart(one, name, act))
            told(f"{one.number}: {one.title}")


async def _clocks(made: Rotated, tally: Tally) -> None:
    """Runs of pods with wrong clocks: whoever asks for a verification is told of the time."""
    for run, away in made.wrong:
        said = await _of_times(made, run)
        told_by = (Told(detector="D2", reason=said),) if said else ()
        tally.trials.append(
            Trial(
                number=CLOCKS.number,
                act=CLOCKS.acts[away > 0][0],
                outcome=Outcome.DETECTED if said else Outcome.UNDETECTED,
                told=told_by,
                where=f"{run.public} {away} s",
                # The times of witnesses are what it is held against.
                layers=frozenset({"D2 and D6"} if said else ()),
            )
        )
    for run in made.bundles:
        tally.controls["a rotation of the log key"] += 1
        if said := await _of_times(made, run):
            tally.false_alarms.append(f"the times of an honest run: {run.public} {said}")


async def _of_times(made: Rotated, run: RunRef) -> str:
    async with made.stage.client(run.tenant) as http:
        told_of = (await http.get(f"/v1/runs/{run.public}/verification")).json()
    assert told_of["verdict"] == "valid", told_of
    return next((said for said in told_of["does_not_prove"] if "its times" in said), "")


async def _bundles(made: Rotated, tally: Tally, *, full: bool) -> None:
    for one in BUNDLES:
        for number in range(each_of(len(one.acts), full=full)):
            if number and tally.is_over:
                break
            for name, deal in one.acts:
                tally.trials.append(await bundle_trial(made, one, name, deal))
        told(f"{one.number}: {one.title}")
    for tar in list(made.bundles.values()) * (3 if full and not tally.is_over else 1):
        found = await made.verify(tar, *soon_after(members_of(tar), made.stage.rng))
        tally.controls["a rotation of the log key, exported and verified offline"] += 1
        if found.code != WHOLE:
            tally.false_alarms.append(f"an honest export: {found}")
