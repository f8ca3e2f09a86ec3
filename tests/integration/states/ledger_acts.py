"""What happens to a ledger, one act at a time, each held against what it must come to.

Threat: Ledger tampering
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from app.domain.erasure import ErasureAction, ErasureReceipt, ErasureStatus
from app.domain.errors import (
    LedgerUnavailableError,
    NotFoundError,
    NotSequencedError,
    StaleEpochError,
    WriterRetiredError,
)
from app.domain.record import (
    ModelRequested,
    ModelResponded,
    RunEvent,
    RunFinished,
    RunStarted,
    RunSubmitted,
)
from app.domain.run import Budget, RunKind, RunStatus, Submission, Usage
from app.domain.step import ModelReply, ModelRequest, StopReason
from app.domain.verdict import ReleasedOutput
from app.ledger.writing import ChainHead
from app.offline.offline_policy import parse_policy
from app.offline.offline_report import Result
from app.offline.offline_verdict import verify_bundle
from app.policy.gate_inputs import OutputInput, RunFacts, SubmitInput
from app.runs.recorder import LedgerRecorder, RunPlace
from app.storage.companions import NewRun
from tests.integration.erasing.erasing_scene import WHY
from tests.integration.states.deployment import Deployment, JournalCrashError, Seat
from tests.integration.states.ledger_model import ALL, Row, RunModel, Thief, told
from tests.integration.states.lifeline import Fate
from tests.support.databases import Roles

ACTOR = "key:0123456789abcdef"
TURN = Usage(input_tokens=1, output_tokens=2, cost_micros=3)
BUDGET = Budget(max_steps=100, max_tokens=10**6, max_cost_micros=10**6, max_wall_seconds=60)
FACTS = RunFacts(
    offered=(), declared=None, may_instruct=True, budget=BUDGET, spent=Usage(), elapsed_seconds=0
)


class LedgerActs:
    """A deployment, what it was told, and the acts."""

    def __init__(self) -> None:
        self.runs: list[RunModel] = []
        self.seats: list[Seat] = []
        self.waiting: list[tuple[RunModel, frozenset[str] | None, ErasureReceipt]] = []
        self.pending: list[tuple[RunModel, ErasureReceipt | None]] = []
        self.log_keys = 1
        self.has_new_keys = False  # an enrolment key gave way to another one
        self.is_fresh = False  # whether all that is written was sequenced and witnessed
        self._seen: dict[tuple[UUID, int], tuple[bytes, bytes]] = {}
        self._leaves: dict[tuple[UUID, int], tuple[UUID, int]] = {}
        self._said = 0

    async def open(self, roles: Roles, directory: Path) -> None:
        """The deployment, its two tenants and its first process."""
        self.place = Deployment(roles, directory)
        await self.place.open()
        self.tenants = [await self.place.tenant(name) for name in ("acme", "other")]
        self.thief = Thief(self.place.office.keys)
        self.seats.append(await self.place.seat())

    async def begin(self, seat: Seat, tenant: int) -> None:
        tenant_id, run_id = self.tenants[tenant], self.place.new_run_id()
        now, gate = datetime.now(UTC), self.place.gate
        run_key, wrapped = seat.parts.run_keys.new_run_key(tenant_id, run_id, now)
        submission = _submission(self.word())
        verdict = gate.run_submit(SubmitInput(submission=submission, platform_tools=frozenset()))
        head = ChainHead.empty(tenant_id.bytes, run_id.bytes)
        recorder = LedgerRecorder(
            RunPlace(tenant_id=tenant_id, run_id=run_id, run_key=run_key, head=head, epoch=1),
            seat.recording,
        )
        recorder.open_run(
            NewRun(
                kind=RunKind.AGENT,
                status=RunStatus.QUEUED,
                provider="offline",
                model="offline",
                agent=None,
                policy_digest=gate.policy.digest,
                created_at=now,
                key=wrapped,
            )
        )
        run = RunModel(tenant_id=tenant_id, run_id=run_id, run_key=run_key)
        run.seat, run.recorder = seat, recorder
        submitted = RunSubmitted(
            actor=ACTOR, submission=submission, provider="offline", decision=verdict.decision
        )
        await self.record(run, [submitted])
        self.runs.append(run)

    async def record(self, run: RunModel, events: list[RunEvent]) -> None:
        """Write them; afterwards they are acknowledged."""
        assert run.recorder is not None
        assert run.seat is not None
        for event in events[:-1]:
            run.recorder.hold(event)
        spent = _spent(run.spent, events)
        self.is_fresh = False
        seq = await run.recorder.record(events[-1], spent)
        run.records += told(run.seat.store.tried[run.run_id], run.run_key)
        run.spent = spent
        assert seq == run.records[-1].row[0] == len(run.records) - 1

    def turns(self, run: RunModel, count: int) -> list[RunEvent]:
        """What the recorder is to write: the start if there was none, then turns of a model."""
        assert run.recorder is not None
        events: list[RunEvent] = []
        if not run.is_started:
            run.recorder.claim()
            run.recorder.set_status(RunStatus.RUNNING)
            events.append(RunStarted())
        for _ in range(count):
            intent = len(run.records) + len(events)
            decision = self.released().decision
            events.append(ModelRequested(request=_request(), decision=decision))
            reply = ModelReply(text=self.word(), calls=(), stop_reason=StopReason.END, usage=TURN)
            events.append(
                ModelResponded(
                    intent=intent,
                    model="offline",
                    reply=reply,
                    decision=decision,
                    error_code=None,
                )
            )
        return events

    def released(self) -> ReleasedOutput:
        said = self.place.gate.run_output(
            OutputInput(text=self.word(), output_schema=None, facts=FACTS)
        )
        assert isinstance(said, ReleasedOutput)
        return said

    def word(self) -> str:
        self._said += 1
        return f"the word number {self._said}"

    async def crash(self, runs: list[RunModel], fate: Fate) -> None:
        seat = runs[0].seat
        assert seat is not None
        self.is_fresh = False
        # The first flush takes one, the next all that came meanwhile: the line goes in that one.
        seat.store.fate = fate
        events = {run.run_id: self.turns(run, 1) for run in runs}
        for run in runs:
            assert run.recorder is not None
            for event in events[run.run_id][:-1]:
                run.recorder.hold(event)
        done = await asyncio.gather(
            *(
                run.recorder.record(events[run.run_id][-1], Usage())
                for run in runs
                if run.recorder is not None
            ),
            return_exceptions=True,
        )
        assert all(isinstance(item, LedgerUnavailableError) for item in done), done
        await seat.line.settled()
        for run in runs:
            tried = told(seat.store.tried[run.run_id], run.run_key)
            if fate is Fate.LATE:
                run.maybe, run.late = tried, seat.line
            elif fate is Fate.CARRIED_OUT:
                run.records += tried
                run.spent = _spent(run.spent, events[run.run_id])
        await self.lose(seat)

    async def lose(self, seat: Seat) -> None:
        """The process is gone, with all it knew."""
        seat.line.cut()
        self.seats.remove(seat)
        for run in self.runs:
            if run.seat is seat:
                run.disown()
        if not self.seats:
            self.seats.append(await self.place.seat())

    async def usurp(self, run: RunModel) -> None:
        former, seat = run.recorder, run.seat
        assert former is not None
        assert seat is not None
        others = [other for other in self.seats if other is not seat]
        if not others:
            others.append(await self.place.seat())
            self.seats += others
        epoch = (await seat.parts.replay.row(run.tenant_id, run.run_id)).epoch
        await self.take_over(run, others[0])
        with pytest.raises(StaleEpochError):
            await former.record(RunFinished(status=RunStatus.FAILED), run.spent)
        # It may learn where the run ends by now: the epoch under which it knew it is over.
        seq, _, chain = run.rows[-1]
        head = ChainHead(next_seq=seq + 1, chain=chain)
        place = RunPlace(
            tenant_id=run.tenant_id,
            run_id=run.run_id,
            run_key=run.run_key,
            head=head,
            epoch=epoch,
        )
        for claims in (False, True):
            again = LedgerRecorder(place, seat.recording)
            if claims:
                again.claim()
            with pytest.raises(StaleEpochError):
                await again.record(RunFinished(status=RunStatus.FAILED), run.spent)

    async def take_over(self, run: RunModel, seat: Seat) -> None:
        row = await seat.parts.replay.row(run.tenant_id, run.run_id)
        reopened = await seat.parts.replay.reopen(run.tenant_id, run.run_id)
        end = reopened.head
        seq, _, chain = run.rows[-1]
        assert (end.next_seq, end.chain) == (seq + 1, chain), "the end is not what was said"
        assert reopened.spent == run.spent
        run.maybe = []  # from now on it never gets there
        run.run_key = reopened.run_key
        place = RunPlace(
            tenant_id=run.tenant_id,
            run_id=run.run_id,
            run_key=reopened.run_key,
            head=ChainHead(next_seq=end.next_seq, chain=end.chain),
            epoch=row.epoch,
        )
        run.seat, run.recorder = seat, LedgerRecorder(place, seat.recording)
        if run.is_started:
            run.recorder.claim()
        await self.record(run, self.turns(run, 1))

    async def arrive(self, run: RunModel) -> None:
        line = run.late
        assert line is not None
        await line.deliver()
        self.is_fresh = False
        for other in self.runs:
            if other.late is not line:
                continue
            other.late = None
            if other.maybe and await self.stored(other) == [*other.rows, *_rows(other)]:
                other.records += other.maybe
                turns = sum(item.kind == "llm.responded" for item in other.maybe)
                for _ in range(turns):
                    other.spent = other.spent.plus(replace(TURN, steps=1))
            other.maybe = []

    async def leave(self, seat: Seat) -> None:
        await seat.parts.enrolment.leave()
        self.is_fresh = False
        for run in [run for run in self.runs if run.seat is seat and owned(run)][:2]:
            with pytest.raises(WriterRetiredError):
                await self.record(run, self.turns(run, 1))
        await self.lose(seat)

    async def end_keys(self) -> None:
        await self.place.eraser.rotation.rotate()
        desk = self.place.office.desk
        for _, receipt in self.pending:
            if receipt is None:
                continue  # a restore took it, and what it was about was erased again
            now = await desk.receipt(receipt.request.tenant_id, receipt.request.erasure_id)
            assert now.status is ErasureStatus.COMPLETE, now
        await self.thief.look(self.place.superuser)
        touched = {run.run_id: run for run, _ in self.pending}
        self.pending.clear()
        for run in touched.values():
            gone = {(seq, name) for seq, names in run.erased.items() for name in names}
            assert not self.thief.reads(run) & gone, "erased, and a copy still opens"
            assert not self.thief.reads_result(run), "the output in full still opens"

    async def sequence(self) -> None:
        await self.place.sequence()
        self.is_fresh = True

    async def erase(self, run: RunModel, fields: frozenset[str] | None, *, crashes: bool) -> None:
        replay, eraser = self.place.office.replay, self.place.eraser.eraser
        ids = (run.tenant_id, run.run_id)
        try:
            if fields is None:
                asked = await replay.delete_run(*ids, **WHY)
            else:
                named = None if fields == ALL else fields
                asked = await replay.anonymize_run(*ids, fields=named, **WHY)
        except NotFoundError:
            assert run.is_deleted
            return
        assert not run.is_deleted
        self.is_fresh = False
        self.waiting.append((run, fields, asked))
        self.place.journal.crashes = crashes
        try:
            await eraser.execute_waiting()
        except JournalCrashError:
            return
        finally:
            self.place.journal.crashes = False
        await self.settle_answers()

    async def settle_answers(self) -> None:
        """Hold every answer against what the model says it must be, in their order."""
        desk = self.place.office.desk
        for run, fields, asked in self.waiting:
            now = await desk.receipt(run.tenant_id, asked.request.erasure_id)
            reason = _refusal(run, fields)
            if reason is not None:
                assert (now.status, now.reason) == (ErasureStatus.REFUSED, reason)
                continue
            assert (now.status, now.reason) == (ErasureStatus.PENDING, None)
            self.was_erased(run, fields)
            if now.request.action is ErasureAction.DELETE_RUN:
                run.delete()
            else:
                run.erase(ALL if fields is None else fields)
            self.pending.append((run, now))
        thinned = [run for run, fields, _ in self.waiting if fields is not None]
        self.waiting.clear()
        for run in thinned:
            if not run.is_deleted:
                await self.verify_offline(run)

    def was_erased(self, run: RunModel, fields: frozenset[str] | None) -> None:
        """Called just before the model learns of an erasure that was carried out."""

    async def restart_eraser(self) -> None:
        eraser = self.place.eraser.eraser
        self.is_fresh = False
        await eraser.execute_waiting()
        await self.settle_answers()
        assert await eraser.replay() == 0

    async def read(self, run: RunModel, seat: Seat) -> None:
        """As `GET /v1/runs/{id}/verification` does, and held against the model."""
        replay, ids = seat.parts.replay, (run.tenant_id, run.run_id)
        if run.is_deleted:
            with pytest.raises(NotFoundError):
                await replay.read_run(*ids)
            left = await replay.remains(*ids)
            assert (left.records, left.head.chain) == (len(run.records), run.rows[-1][2])
            return
        dossier = await replay.read_run(*ids, with_output=True, anew=True)
        told_rows = [(item.seq, item.rc, item.chain) for item in dossier.chain.records]
        assert told_rows == run.rows
        for record, item in zip(dossier.chain.records, run.records, strict=True):
            gone = run.erased[record.seq]
            assert record.erased == gone
            kept = {name: value for name, value in item.fields.items() if name not in gone}
            assert dict(record.fields) == kept
        assert dossier.output == run.output
        assert dossier.chain.is_erased == run.is_thinned
        if self.is_fresh:
            assert dossier.integrity.unwitnessed == 0

    async def verify_offline(self, run: RunModel) -> None:
        try:
            bundle = await self.place.office.exports.bundle(run.tenant_id, run.run_id)
        except NotSequencedError:
            assert run.is_thinned or self.has_new_keys
            assert not self.is_fresh
            return
        report = verify_bundle(bundle, parse_policy(await self.place.policy()))
        whole = Result.VALID if run.is_over else Result.INCOMPLETE
        allowed = {whole} if self.is_fresh else {whole, Result.INCOMPLETE}
        assert report.result in allowed, (report.result, report.findings)
        assert report.records == len(run.records)

    async def sweep(self) -> None:
        reports = await self.place.swept()
        told = [report.findings for report in reports if report.broken]
        assert not told, told
        own = [report for report in reports if report.log in {log.bytes for log in self.tenants}]
        assert sum(report.records for report in own) >= sum(len(run.records) for run in self.runs)
        if self.is_fresh:
            for report in own:
                assert report.leaves == report.signed == report.records

    async def compare(self) -> None:
        await self.thief.look(self.place.superuser)
        for run in self.runs:
            stored = await self.stored(run)
            assert stored == run.rows, f"{len(run.rows)} records were said, not {len(stored)}"

    async def only_grew(self) -> None:
        sql = self.place.superuser
        rows = await sql.fetch("SELECT run_id, seq, rc, chain FROM record")
        hashes = {(run, seq): (rc, chain) for run, seq, rc, chain in rows}
        assert self._seen.items() <= hashes.items()
        self._seen = hashes
        leaves = {
            (log, index): (run, seq)
            for log, index, run, seq in await sql.fetch(
                "SELECT tenant_id, idx, run_id, seq FROM leaf"
            )
        }
        assert self._leaves.items() <= leaves.items()
        self._leaves = leaves

    async def stored(self, run: RunModel) -> list[Row]:
        rows = await self.place.superuser.fetch(
            "SELECT seq, rc, chain FROM record WHERE tenant_id = $1 AND run_id = $2 ORDER BY seq",
            run.tenant_id,
            run.run_id,
        )
        return [tuple(row) for row in rows]

    async def end(self) -> None:
        await self.place.eraser.eraser.execute_waiting()
        await self.settle_answers()
        await self.end_keys()
        await self.sequence()
        for run in self.runs:
            await self.read(run, self.seats[0])
            if not run.is_deleted:
                await self.verify_offline(run)
        await self.sweep()
        await self.compare()
        await self.only_grew()

    def rotate_log_key(self) -> None:
        self.place.add_log_key()
        self.log_keys += 1
        self.is_fresh = False

    async def finish(self, run: RunModel, *, speaks: bool) -> None:
        """The last record, with an output that is kept in full or with none."""
        output = self.released() if speaks else None
        final = RunFinished(
            status=RunStatus.SUCCEEDED,
            output=output,
            decision=None if output is None else output.decision,
        )
        await self.record(run, [*self.turns(run, 0), final])
        run.output = None if output is None else output.text
        run.disown()

    async def append_to_all(self) -> None:
        """One batch a log and writer."""
        runs = [run for run in self.runs if owned(run)]
        await asyncio.gather(*(self.record(run, self.turns(run, 1)) for run in runs))

    async def one_more(self) -> None:
        self.seats.append(await self.place.seat())
        self.is_fresh = False

    async def hold_or_release(self, run: RunModel) -> None:
        desk, ids = self.place.office.desk, (run.tenant_id, run.run_id)
        self.is_fresh = False
        if run.is_held:
            await desk.release_hold(*ids, "released", "operator")
        else:
            await desk.set_hold(*ids, "court_order", "operator")
        run.is_held = not run.is_held


def owned(run: RunModel) -> bool:
    """Somebody is writing it."""
    return run.recorder is not None and not run.is_over


def unowned(run: RunModel) -> bool:
    """It goes on, and nobody writes it."""
    return run.recorder is None and not run.is_over


def _refusal(run: RunModel, fields: frozenset[str] | None) -> str | None:
    """Why an erasure must be refused, or None."""
    if run.is_deleted:
        return "not_found"
    if not run.is_over:
        return "run_not_over"
    if fields is not None and not run.left(fields) and run.output is None:
        return "nothing_left"
    return "hold" if run.is_held else None


def _rows(run: RunModel) -> list[tuple[int, bytes, bytes]]:
    return [item.row for item in run.maybe]


def _spent(before: Usage, events: list[RunEvent]) -> Usage:
    for event in events:
        if isinstance(event, ModelResponded):
            before = before.plus(replace(TURN, steps=1))
    return before


def _submission(text: str) -> Submission:
    return Submission(
        instructions=text,
        data=(),
        agent=None,
        model="offline",
        provider="offline",
        system_prompt="",
        tools=(),
        capabilities=None,
        budget=BUDGET,
        output_schema=None,
        metadata={},
        scrub_phi=False,
    )


def _request() -> ModelRequest:
    return ModelRequest(
        model="offline",
        system="",
        messages=(),
        tools=(),
        max_output_tokens=10,
        timeout_seconds=1,
    )
