"""Puts the checks of a bundle together into one verdict: what holds, what does not, what is unseen.

Threat: Ledger tampering
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.offline.bundle_reader import (
    ADMINISTRATION,
    ANCHOR,
    BATCHES,
    CHECKPOINT,
    MANIFEST,
    OPERATOR,
    PAYLOADS,
    RECORDS,
    WRITERS,
    Bundle,
    lines_of,
    one_value,
    read_bundle,
)
from app.offline.offline_batches import Writer, check_batches, read_writers
from app.offline.offline_entries import AdministrationRun, Entry, read_entry
from app.offline.offline_erasures import (
    DELETE_RUN,
    Statement,
    check_gone,
    check_statement,
    read_statement,
    told,
)
from app.offline.offline_keys import (
    KeyHistory,
    check_signed_by_log,
    read_retirement,
    read_rotation,
    signing_key,
)
from app.offline.offline_merkle import tag
from app.offline.offline_notes import Checkpoint, cosigners, parse_checkpoint
from app.offline.offline_policy import Policy
from app.offline.offline_records import RunRecords, StoredRecord, read_payloads, read_records
from app.offline.offline_report import Report, Result
from app.offline.strict_json import BrokenError, Row, parse_canonical

_END = "run.finished"
_MOST_FAULTS = 100
_ERASURES = ("erasure.anonymize_run", "erasure.delete_run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How old the quorum's cosignatures may be at a moment, both in seconds."""

    now: int
    max_age: int | None


@dataclass(slots=True, kw_only=True)
class _Case:
    """What is being looked at."""

    bundle: Bundle
    policy: Policy | None
    report: Report
    checkpoint: Checkpoint | None = None
    operator: Checkpoint | None = None
    history: KeyHistory = field(default_factory=KeyHistory)
    erasures: list[tuple[Entry, Statement]] = field(default_factory=list)
    administration: dict[bytes, AdministrationRun] = field(default_factory=dict)


def verify_bundle(data: bytes, policy: Policy | None, freshness: Freshness | None = None) -> Report:
    """The verdict on a bundle. UnusableError if it is none; whatever else it holds is a finding."""
    bundle = read_bundle(data)
    case = _Case(
        bundle=bundle, policy=policy, report=Report(log=bundle.log.hex(), run=bundle.run.hex())
    )
    for name in bundle.mismatched:
        case.report.broken(MANIFEST, None, f"{name} is not the file that the manifest names")
    _read_checkpoints(case)
    _read_administration(case)
    _check_notes(case)
    found = _check_run(case)
    _check_witnessing(case, found, freshness)
    if policy is None:
        case.report.missing("policy", None, "no policy is given, so no key is trusted")
    if case.report.result is Result.TAMPERED:
        # Nothing is claimed of a bundle that something is wrong with.
        case.report.witnessed, case.report.witnessed_at = 0, None
        case.report.unwitnessed_since = None
        case.report.deleted = False
    return case.report


def _read_checkpoints(case: _Case) -> None:
    case.checkpoint = _checkpoint(case, CHECKPOINT)
    case.operator = _checkpoint(case, OPERATOR)
    at, operator = case.checkpoint, case.operator
    if at is not None and at.log != case.bundle.log.hex():
        case.report.broken(CHECKPOINT, None, "is of another log than the bundle")
    if at is not None and operator is not None and at.deployment != operator.deployment:
        case.report.broken(OPERATOR, None, "is of another deployment than the log")
    if at is not None and operator is not None and at.log == operator.log:
        case.report.broken(OPERATOR, None, "is of the log that it should anchor")


def _checkpoint(case: _Case, name: str) -> Checkpoint | None:
    data = case.bundle.members[name]
    if not data:
        return None
    try:
        return parse_checkpoint(data)
    except BrokenError as error:
        case.report.broken(name, None, error.reason)
        return None


def _read_administration(case: _Case) -> None:
    faults = 0
    try:
        for line in lines_of(case.bundle.members[ADMINISTRATION]):
            try:
                _take_entry(case, read_entry(parse_canonical(line)))
            except BrokenError as error:
                case.report.broken(ADMINISTRATION, None, error.reason)
                faults += 1
            if faults >= _MOST_FAULTS:
                return  # millions of empty lines must not cost hours
    except BrokenError as error:
        case.report.broken(ADMINISTRATION, None, error.reason)


def _take_entry(case: _Case, entry: Entry) -> None:
    of_tenant = entry.log == case.bundle.log
    entry.check_place(case.checkpoint if of_tenant else case.operator)
    _check_administration_run(case, entry)
    if of_tenant and entry.kind in _ERASURES:
        statement = read_statement(entry.note)
        if entry.kind != f"erasure.{statement.action}":
            raise BrokenError("the erasure statement is of another action than its record")
        case.erasures.append((entry, statement))
    elif not of_tenant and entry.kind == "key.rotated":
        case.history.add_rotation(read_rotation(entry.note))
    elif not of_tenant and entry.kind == "key.retired":
        case.history.add_retirement(read_retirement(entry.note))
    else:
        raise BrokenError("there is a record that has no place in a bundle, or not in this log")


def _check_administration_run(case: _Case, entry: Entry) -> None:
    """A log has one administration run, and it is not the run of the bundle."""
    case.administration.setdefault(entry.log, AdministrationRun(run=entry.run)).take(entry)
    if entry.log == case.bundle.log and entry.run == case.bundle.run:
        raise BrokenError("the run of the bundle is no administration run")


def _check_notes(case: _Case) -> None:
    """Both checkpoints are signed by log keys that count. Says nothing without a policy."""
    policy, operator = case.policy, case.operator
    if policy is None:
        return
    for name, checkpoint in ((CHECKPOINT, case.checkpoint), (OPERATOR, operator)):
        if checkpoint is None:
            continue
        try:
            check_signed_by_log(checkpoint, policy, case.history)
        except BrokenError as error:
            case.report.broken(name, None, error.reason)
    if operator is not None and all(key.name != operator.origin for key in policy.logs):
        case.report.broken(OPERATOR, None, "is of an operator log that is not pinned")


def _check_run(case: _Case) -> RunRecords:
    bundle, report = case.bundle, case.report
    found = read_records(bundle.members, bundle.log, bundle.run, case.checkpoint, report.broken)
    read_payloads(bundle.members, found, report.broken)
    report.records = len(found.rows)
    last = found.rows[-1].header if found.rows else None
    report.last_kind = None if last is None else last.kind
    if last is not None and last.kind != _END:
        report.missing(RECORDS, last.seq, "the run does not end here, so records may be left out")
    writers = read_writers(bundle.members, report.broken)
    signed = check_batches(bundle.members, found, writers, report.broken)
    for writer_id, rows in signed.items():
        _check_retired(case, writer_id, rows)
    _check_certificates(case, writers, signed)
    statements = _lawful_statements(case, found)
    withheld = not bundle.members[PAYLOADS]
    named = check_gone(found, statements, report.broken, withheld=withheld)
    if withheld and any(name not in named.get(seq, ()) for seq, name in found.committed()):
        report.missing(PAYLOADS, None, "no content is here, so what was said cannot be checked")
    report.erased = told(found, named)
    report.deleted = any(statement.action == DELETE_RUN for statement in statements)
    return found


def _index(case: _Case, row: StoredRecord) -> int:
    """The least index that a record can have: without a place it comes after the checkpoint."""
    if row.index is not None:
        return row.index
    return 0 if case.checkpoint is None else case.checkpoint.size


def _check_retired(case: _Case, writer_id: bytes, rows: Sequence[StoredRecord]) -> None:
    end = case.history.retired_at(writer_id, case.bundle.log.hex())
    for row in rows:
        if end is not None and _index(case, row) >= end:
            case.report.broken(BATCHES, row.seq, "the writer of this record had been retired")
            return


def _check_certificates(
    case: _Case, writers: Mapping[bytes, Writer], signed: Mapping[bytes, list[StoredRecord]]
) -> None:
    policy, history, log = case.policy, case.history, case.bundle.log.hex()
    if policy is None:
        return
    trusted = history.trusted("enrolment", policy.enrolment)
    if not trusted:
        case.report.missing(WRITERS, None, "the policy pins no enrolment key")
        return
    for writer_id, rows in signed.items():
        writer = writers[writer_id]
        message = tag("writer") + writer.writer_id + writer.public
        key = signing_key(trusted, writer.certificate or b"", message)
        for row in rows:
            try:
                history.check_counts("enrolment", key, trusted, log, _index(case, row))
            except BrokenError as error:
                case.report.broken(WRITERS, row.seq, error.reason)
                break


def _lawful_statements(case: _Case, found: RunRecords) -> list[Statement]:
    """The statements that hold; those of a key that nobody pins count only without any pin."""
    policy, history = case.policy, case.history
    trusted = [] if policy is None else history.trusted("erasure", policy.erasure)
    lawful: list[Statement] = []
    for entry, statement in case.erasures:
        try:
            check_statement(statement, found, entry.index)
            if policy is not None and statement.checkpoint is not None:
                check_signed_by_log(statement.checkpoint, policy, history)
            if trusted:
                history.check_counts(
                    "erasure", statement.key, trusted, entry.log.hex(), entry.index
                )
        except BrokenError as error:
            case.report.broken(ADMINISTRATION, None, error.reason)
            continue
        if not trusted:
            case.report.missing(ADMINISTRATION, None, "no key for erasures is pinned")
        lawful.append(statement)
    return lawful


def _check_witnessing(case: _Case, found: RunRecords, freshness: Freshness | None) -> None:
    """How many records a quorum has seen, and when; the rest is said to be unseen."""
    report = case.report
    anchored = _is_anchored(case)
    moment = _quorum_time(case, freshness) if case.operator is not None else None
    if anchored and moment is not None:
        report.witnessed = sum(row.index is not None for row in found.rows)
        report.witnessed_at = moment
    if report.witnessed < len(found.rows):
        unseen = len(found.rows) - report.witnessed
        report.missing(RECORDS, report.witnessed, f"{unseen} records are not witnessed")
        first = found.rows[report.witnessed].header
        report.unwitnessed_since = None if first is None else first.ts


def _is_anchored(case: _Case) -> bool:
    """Whether the checkpoint is the content of a record that the operator's checkpoint holds."""
    try:
        value = one_value(case.bundle.members[ANCHOR])
        if value is None:
            return False
        entry = read_entry(value)
        entry.check_place(case.operator)
        _check_administration_run(case, entry)
        text = Row(entry.note, ("checkpoint",)).text("checkpoint")
    except BrokenError as error:
        case.report.broken(ANCHOR, None, error.reason)
        return False
    if entry.kind != "checkpoint.tenant" or entry.log == case.bundle.log:
        case.report.broken(ANCHOR, None, "is no checkpoint.tenant record of the operator log")
        return False
    if text.encode("utf-8") != case.bundle.members[CHECKPOINT]:
        case.report.broken(ANCHOR, None, "names another checkpoint than the one of the bundle")
        return False
    return True


def _quorum_time(case: _Case, freshness: Freshness | None) -> int | None:
    policy, operator, report = case.policy, case.operator, case.report
    if policy is None or operator is None:
        return None
    try:
        # A line that does not hold breaks the note, whoever is asked for.
        found = cosigners(operator.note, policy.witnesses.values())
    except BrokenError as error:
        report.broken(OPERATOR, None, error.reason)
        return None
    if not policy.asks_for_witnesses:
        report.missing("policy", None, "the policy asks for no witness, so nothing is witnessed")
        return None
    stamps: dict[bytes, int] = {}
    for key, stamp in found:
        if freshness is None or stamp <= freshness.now:
            stamps[key.public] = max(stamp, stamps.get(key.public, 0))
    moment = policy.quorum_time(stamps)
    if moment is None:
        report.missing(OPERATOR, None, "its cosignatures do not make up the policy's quorum")
        return None
    if freshness is not None and freshness.max_age is not None:
        age = freshness.now - moment
        if age > freshness.max_age:
            report.missing(OPERATOR, None, f"the witnesses saw it {age} seconds ago")
    return moment
