"""Sweeps whole logs with rights to read alone and keys of the auditor's own: `meshflow audit`.

One snapshot, pages of bounded size. It opens no content, so it cannot show any; what it can tell
without content keys is everything but what a payload says. An auditor who was given the key of the
operator log's notes holds the logs against what those say, too: no content is in them.

Source: docs/ledger-format.md sections 5 to 11.

Threat: Ledger tampering
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.audit.checkpoint_sweep import CheckpointSweep
from app.audit.enrolment_pins import EnrolmentPins, enrolment_pins
from app.audit.log_keys import LogKeys
from app.audit.operator_notes import OperatorHistory, OperatorNotes
from app.audit.run_sweep import RunSweep
from app.audit.sweep_report import LogReport
from app.audit.tree_sweep import TreeSweep, check_root
from app.audit.witnessing import quorum_time
from app.domain.errors import ConfigurationError
from app.domain.run import OPERATOR, TenantId
from app.keys.operator_key import OperatorKey
from app.ledger.batches import BatchError, batch_root, chains_of, spans_of
from app.ledger.chain import StoredBatch
from app.ledger.enrolment import is_certified
from app.ledger.hashing import batch_message
from app.ledger.signatures import signature_holds
from app.storage.database import Database
from app.storage.entry_store import find_entries, read_lines
from app.storage.log_store import read_tiles
from app.storage.place_store import LogState, SignedHead, read_log_state
from app.storage.sweep_store import (
    Snapshot,
    chains_in,
    checkpoints_from,
    leaves_from,
    logs_of,
    pages_of_batches,
    pages_of_records,
    sweeping,
)
from app.transparency.checkpoint import verify_cosignature
from app.transparency.note import Note, NoteError, parse_note, parse_signature_line
from app.transparency.tiles import TileAddress
from app.transparency.witness_policy import NO_QUORUM, WitnessPolicy

_ERASURES = ("erasure.anonymize_run", "erasure.delete_run")
_MARK = "/ledger/"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What the auditor trusts."""

    policy: WitnessPolicy
    deployment: str
    keys: LogKeys

    @classmethod
    def of(cls, policy: WitnessPolicy) -> "Pins":
        """The pins of a policy. ConfigurationError when it names no log of MeshFlow's."""
        deployments = {log.key.name.partition(_MARK)[0] for log in policy.logs}
        if len(deployments) != 1 or not all(_MARK in log.key.name for log in policy.logs):
            raise ConfigurationError("the policy pins the logs of no deployment, or of several")
        if not policy.enrolment_keys:
            raise ConfigurationError("the policy pins no enrolment key")
        keys = LogKeys(list(dict.fromkeys(log.key.public_key for log in policy.logs)))
        return cls(policy=policy, deployment=deployments.pop(), keys=keys)


class Sweep:
    """One auditor. Never writes. `key` opens the operator log's notes."""

    def __init__(
        self, database: Database, pins: Pins, progress: Progress, key: OperatorKey | None = None
    ) -> None:
        self._database = database
        self._pins = pins
        self._progress = progress
        self._key = key

    async def run(self, tenant: str | None) -> list[LogReport]:
        """The report of every log, or of one tenant's and the operator's."""
        async with sweeping(self._database) as raw:
            logs = await logs_of(raw, tenant)
            reports = {log.bytes: LogReport(log=log.bytes, tenant=name) for log, name in logs}
            operator = next((log for log, name in logs if name == OPERATOR), None)
            if operator is None:
                raise ConfigurationError("there is no operator log")
            notes, history = await self._notes(raw, reports[operator.bytes])
            pins = replace(self._pins, keys=self._pins.keys.tied(history.changes))
            pinned = {item.public_key for item in pins.policy.enrolment_keys}
            writers = await enrolment_pins(raw, pinned, history.changes)
            for log, _ in logs:
                report = reports[log.bytes]
                await _LogSweep(raw, log, report, pins, (history, writers), self._progress).run()
            checkpoints = CheckpointSweep(
                raw=raw,
                operator=operator,
                keys=pins.keys,
                deployment=pins.deployment,
                reports=reports,
                is_all=tenant is None,
            )
            for log, _ in logs:
                if log != operator:
                    await checkpoints.rows(log, notes)
            if notes is None:
                await checkpoints.count()
            else:
                await checkpoints.records(notes, history)
            return list(reports.values())

    async def _notes(
        self, raw: Snapshot, report: LogReport
    ) -> tuple[OperatorNotes | None, OperatorHistory]:
        if self._key is None:
            return None, OperatorHistory()
        if self._key.log != report.log:
            raise ConfigurationError("the key is of another operator log")
        notes = OperatorNotes(raw, self._key, report)
        pinned = [key.public_key for key in self._pins.policy.erasure_keys]
        return notes, await notes.history(pinned, self._pins.keys.keys)


class _LogSweep:
    """One log in one snapshot."""

    def __init__(
        self,
        raw: Snapshot,
        log: TenantId,
        report: LogReport,
        pins: Pins,
        told: tuple[OperatorHistory, EnrolmentPins],
        progress: Progress,
    ) -> None:
        self._raw = raw
        self._log = log
        self._pins = pins
        self._history, self._writers = told
        self._progress = progress
        self._report = report
        self._is_operator = report.tenant == OPERATOR

    async def run(self) -> None:
        """Look at everything that the log has."""
        state = await read_log_state(self._raw, self._log)
        await self._tree(state)
        await self._records()
        await self._batches()
        if self._is_operator:
            await self._cosignatures()

    def _opened(self, head: SignedHead) -> str | None:
        """Why a checkpoint does not hold, or None."""
        origin = f"{self._pins.deployment}{_MARK}{self._log.hex}"
        if head.origin != origin and not head.origin.startswith(f"{origin}/r"):
            return "it is of another log"
        try:
            found = self._pins.keys.opened(head.note, head.origin, self._log.bytes)
        except NoteError as error:
            return f"its signature does not hold: {error}"
        is_same = (found.origin, found.size, found.root) == (head.origin, head.size, head.root)
        return None if is_same else "it is stored as another one"

    async def _tree(self, state: LogState | None) -> None:
        report, sweep = self._report, TreeSweep(self._log, self._report)
        size = 0 if state is None else state.size
        checkpoints = await checkpoints_from(self._raw, self._log, -1)
        while page := await leaves_from(self._raw, self._log, sweep.size):
            for leaf in page:
                checkpoints = await self._due(checkpoints, sweep)
                sweep.add(leaf.index, leaf.run, leaf.seq, leaf.chain)
            await self._compare(sweep.closed(at_end=False), size)
            self._progress("leaves", sweep.size, size)
        checkpoints = await self._due(checkpoints, sweep)
        await self._compare(sweep.closed(at_end=True), size)
        if state is None:
            if sweep.size:
                report.add("log_head", "the head of the log is gone")
        elif (state.size, state.root) != (sweep.size, sweep.root()):
            report.add("log_head", f"the log has {sweep.size} leaves, or another root than it says")
        for head in checkpoints:
            report.add("checkpoint", f"size {head.size}: the log ends before it")

    async def _due(self, checkpoints: list[SignedHead], sweep: TreeSweep) -> list[SignedHead]:
        """Check the checkpoints of the size that the sweep has come to; those that follow."""
        while checkpoints and checkpoints[0].size <= sweep.size:
            head, checkpoints = checkpoints[0], checkpoints[1:]
            check_root(head, sweep, self._report, self._opened)
            if not checkpoints:
                checkpoints = await checkpoints_from(self._raw, self._log, head.size)
        return checkpoints

    async def _compare(self, made: dict[TileAddress, bytes], size: int) -> None:
        stored = await read_tiles(self._raw, self._log, made)
        for address, data in made.items():
            self._report.tiles += 1
            if stored.get(address) != data:
                where = f"tile {address.level}/{address.n}"
                what = "is missing" if address not in stored else "is not what the leaves make it"
                self._report.add("tile", f"{where} {what} in a log of {size}")

    async def _records(self) -> None:
        erasures = await find_entries(self._raw, self._log, _ERASURES)
        retired = {
            writer: sizes.get(self._log.hex, 0)
            for writer, sizes in (self._history.retired or {}).items()
        }
        sweep = RunSweep(
            self._log.bytes,
            self._report,
            may_be_erased=bool(erasures),
            retired=retired,
            outlived=self._writers.ends(self._log.bytes),
        )
        async for page in pages_of_records(self._raw, self._log):
            sweep.add(page)
            self._progress("records", self._report.records, max(self._report.leaves, 1))
        sweep.end()

    async def _batches(self) -> None:
        total = 0
        async for page in pages_of_batches(self._raw, self._log):
            spans = [spans_of(batch.ranges) for batch in page]
            flat = [(span.run, span.first, span.last) for found in spans for span in found.values()]
            chains = iter(await chains_in(self._raw, self._log, flat))
            for batch, found in zip(page, spans, strict=True):
                own = [next(chains) for _ in found]
                total += batch.count
                fault = self._batch_fault(batch, own)
                if fault is not None:
                    run, span = next(iter(found.items()), (None, None))
                    self._report.add("batch", fault, run, None if span is None else span.first)
            self._report.batches += len(page)
            self._progress("batches", total, self._report.records)
        if total != self._report.records:
            reason = f"the batches hold {total} records, and there are {self._report.records}"
            self._report.add("batch", reason)

    def _batch_fault(
        self, batch: StoredBatch, records: list[list[tuple[int, bytes, bytes]]]
    ) -> str | None:
        spans = spans_of(batch.ranges)
        for span, found in zip(spans.values(), records, strict=True):
            wanted = list(range(span.first, span.last + 1))
            if [seq for seq, _, _ in found] != wanted:
                return "the records of a batch are not those that its ranges name"
            if any(batch_id != batch.batch_id for _, _, batch_id in found):
                return "a record is in another batch than the one that names it"
        own = [chain for found in records for _, chain, _ in found]
        try:
            chains = chains_of(spans, batch.entries, own)
        except BatchError as error:
            return str(error)
        if chains != own or len(own) != batch.count:
            return "the entries of a batch do not match its records"
        if batch_root(spans, chains) != batch.tip:
            return "the tip of a batch does not match its records"
        key = batch.public_key
        trusted = self._writers.keys
        if key is None or not is_certified(trusted, batch.writer, key, batch.certificate):
            return "the writer of a batch is not certified"
        message = batch_message(self._log.bytes, batch.batch_id, batch.count, batch.tip)
        if not signature_holds(key, batch.signature, message):
            return "the signature of a batch does not hold"
        return None

    async def _cosignatures(self) -> None:
        """Every line of a witness that is pinned holds; when a quorum last saw the log."""
        policy, above = self._pins.policy, -1
        by_key = {(w.key.name, w.key.key_id): w for w in policy.witnesses}
        while page := await checkpoints_from(self._raw, self._log, above):
            for head in page:
                stamps: dict[str, int] = {}
                for line in await read_lines(self._raw, self._log, head.origin, head.size):
                    self._report.cosignatures += 1
                    try:
                        signature = parse_signature_line(line)
                        witness = by_key.get((signature.name, signature.key_id))
                        if witness is None:
                            continue
                        text = parse_note(head.note.encode()).text
                        note = Note(text=text, signatures=(signature,))
                        stamps[witness.name] = verify_cosignature(note, witness.key)
                    except NoteError:
                        self._report.add(
                            "cosignature", f"size {head.size}: a cosignature does not hold"
                        )
                at = None if policy.quorum == NO_QUORUM else quorum_time(policy, stamps)
                self._report.witnessed_at = at or self._report.witnessed_at
            above = page[-1].size
