"""What readers of runs are shown: closed models without defaults, made from verified records."""

from collections import Counter
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from app.api.entry_views import (
    CapabilitiesView,
    Moment,
    OutputView,
    TaskView,
    View,
    body_of,
    parsed,
)
from app.api.receipt_views import ReceiptView
from app.audit.integrity import Integrity, IntegrityState
from app.audit.run_dossier import Remains, RunDossier
from app.domain.errors import ChainBreak
from app.domain.run import OutputState, RunId, RunKind, RunRow, RunStatus, public_run_id
from app.ledger.chain import VerifiedChain
from app.runs.notifier import RunEnd


class UsageView(View):
    """Tokens and turns used."""

    input_tokens: int
    output_tokens: int
    steps: int


class ErrorView(View):
    """Why a run did not succeed, as a stable code."""

    code: str


class PolicyView(View):
    """The policy the run was decided by: SHA-256 of its canonical bytes."""

    digest: str


class IntegrityView(View):
    """What is proved of the run's ledger now.

    `anchored`: every record is in a log that witnesses outside the database have signed, since
    `witnessed_at`. `pending`: it verifies, and `unwitnessed` records are not witnessed yet.
    """

    state: IntegrityState
    size: int
    witnessed_at: Moment | None
    unwitnessed: int


class RunSummary(View):
    """A run without its content; in a list as its row says, unverified."""

    id: str
    kind: Literal[RunKind.AGENT]
    status: RunStatus
    provider: str
    model: str
    agent: str | None
    usage: UsageView
    cost_micros: int
    error: ErrorView | None
    created_at: Moment
    finished_at: Moment | None


class RunView(RunSummary):
    """A run, read from its verified ledger."""

    task: TaskView | None
    output: str | None
    output_state: OutputState
    policy: PolicyView
    capabilities: CapabilitiesView | None
    mode: str | None
    entries: int
    integrity: IntegrityView
    metadata: dict[str, JsonValue]


class StartedRunView(RunView):
    """A run that was just accepted, and the receipt for it, which is worth keeping."""

    receipt: ReceiptView


class RunPage(View):
    """A page of runs, newest first."""

    data: list[RunSummary]
    has_more: bool
    next_cursor: str | None


class BreakView(View):
    """Where a ledger stops proving itself, and how."""

    seq: int
    reason: str


class ErasedView(View):
    """What was lawfully taken away: the whole run, or how often each field."""

    deleted: bool
    fields: dict[str, int]


class VerificationView(View):
    """The result of verifying a run now, and what it can and cannot show.

    `unwitnessed_age_seconds`: for how long the oldest record that no witness has seen has been
    there, by its own time; 0 when all are witnessed, null where that time is erased or broken.
    """

    run_id: str
    verdict: Literal["valid", "broken"]
    entries: int | None
    head: str | None
    break_: Annotated[BreakView | None, Field(alias="break")]
    integrity: IntegrityView
    unwitnessed_age_seconds: int | None
    erased: ErasedView | None
    proves: list[str]
    does_not_prove: list[str]


def summary_of(run: RunRow) -> RunSummary:
    """A run's row as shown in lists."""
    return RunSummary(**_summary(run))


def _summary(run: RunRow) -> dict[str, object]:
    return {
        "id": public_run_id(run.run_id),
        "kind": run.kind,
        "status": run.status,
        "provider": run.provider,
        "model": run.model,
        "agent": run.agent,
        "usage": UsageView(
            input_tokens=run.usage.input_tokens,
            output_tokens=run.usage.output_tokens,
            steps=run.usage.steps,
        ),
        "cost_micros": run.usage.cost_micros,
        "error": None if run.error_code is None else ErrorView(code=run.error_code),
        "created_at": run.created_at,
        "finished_at": run.finished_at,
    }


def view_of(dossier: RunDossier) -> RunView:
    """A verified run as shown."""
    records = dossier.chain.records
    task = body_of(TaskView, records[0], "task")
    last = body_of(OutputView, records[-1], "output")
    output = dossier.output if dossier.output is not None else (last.text if last else None)
    return run_view(
        dossier.run,
        task,
        integrity=integrity_of(dossier.integrity),
        output=output,
        state=dossier.output_state,
    )


def started_view(run: RunRow, task: bytes, entries: int, receipt: ReceiptView) -> StartedRunView:
    """A run of so many records, as it was just written."""
    state, integrity = OutputState.SCRUBBED, pending(entries)
    told = _told(run, parsed(TaskView, task), integrity=integrity, output=None, state=state)
    return StartedRunView(**told, receipt=receipt)


def ended_view(run: RunRow, task: bytes, end: RunEnd, receipt: ReceiptView) -> StartedRunView:
    """A run as this process has just ended it: what it wrote, and read back from nowhere."""
    row = replace(
        run,
        status=end.status,
        error_code=end.error_code,
        usage=end.usage,
        entries=end.entries,
        finished_at=end.finished_at,
    )
    told = None if end.told is None else parsed(OutputView, end.told)
    state = OutputState.SCRUBBED if end.output is None else OutputState.FULL
    output = end.output if end.output is not None or told is None else told.text
    view = _told(
        row, parsed(TaskView, task), integrity=pending(end.entries), output=output, state=state
    )
    return StartedRunView(**view, receipt=receipt)


def received_view(view: RunView, receipt: ReceiptView) -> StartedRunView:
    """A run as it is read a while after it was accepted."""
    return StartedRunView(**dict(view), receipt=receipt)


def run_view(
    run: RunRow,
    task: TaskView | None,
    *,
    integrity: IntegrityView,
    output: str | None,
    state: OutputState,
) -> RunView:
    """A run from its parts."""
    return RunView(**_told(run, task, integrity=integrity, output=output, state=state))


def _told(
    run: RunRow,
    task: TaskView | None,
    *,
    integrity: IntegrityView,
    output: str | None,
    state: OutputState,
) -> dict[str, object]:
    return {
        **_summary(run),
        "task": task,
        "output": output,
        "output_state": state,
        "policy": PolicyView(digest=run.policy_digest),
        "capabilities": None if task is None else task.effective,
        "mode": None if task is None else task.mode,
        "entries": integrity.size,
        "integrity": integrity,
        "metadata": {} if task is None else task.metadata,
    }


def pending(entries: int) -> IntegrityView:
    """Verified here and now; no witness has seen it."""
    return IntegrityView(
        state=IntegrityState.PENDING, size=entries, witnessed_at=None, unwitnessed=entries
    )


def integrity_of(found: Integrity) -> IntegrityView:
    """As shown."""
    return IntegrityView(
        state=found.state,
        size=found.size,
        witnessed_at=found.witnessed_at,
        unwitnessed=found.unwitnessed,
    )


PROVES = (
    "every record up to the last one is in its place and unchanged",
    "every stored text is the one that was committed to when it was written",
    "every record was signed by a writer key that the deployment certified",
    "every record that the tenant's log holds is at its place there, as the log key signed it",
    "the output in full, while it is kept, is the one that was released",
    "status, error, usage, model, agent and times of the run are those that its records say",
)
PROVES_OF_GAPS = "what is missing was erased by a recorded statement that the erasure key signed"
PROVES_OF_REMAINS = (
    "a run of so many records existed and was lawfully deleted",
    "their hashes are in their places and were signed by certified writers",
    PROVES_OF_GAPS,
)
PROVES_OF_WITNESSES = (
    "every record is in a log that a quorum of witnesses outside the database has signed: nobody"
    " can change, cut or remove it any more without their seeing it"
)
DOES_NOT_PROVE = ("that what a model or tool said is true",)
NOT_OF_THE_END = (
    "that no unwitnessed record was changed or cut from the end by somebody who holds the"
    " deployment's keys and its database: no witness has seen {count} of {size} records yet"
)
NOT_AFTER = (
    "that its times are right: record {seq} says {said:%Y-%m-%dT%H:%M:%SZ}, and at"
    " {at:%Y-%m-%dT%H:%M:%SZ} witnesses saw the log without it; the clock of its writer was behind,"
    " or it waited that long for its place"
)
NOT_BEFORE = (
    "that its times are right: record {seq} says {said:%Y-%m-%dT%H:%M:%SZ}, and at"
    " {at:%Y-%m-%dT%H:%M:%SZ} witnesses had already seen it; the clock of its writer was ahead"
)
NOT_BY_ITSELF = (
    "anything to somebody who does not trust this server: an export with `meshflow verify-bundle`"
    " and keys obtained elsewhere does"
)


def valid_verification(dossier: RunDossier) -> VerificationView:
    """A run that verified, with the limits of that in words."""
    integrity = dossier.integrity
    return VerificationView.model_validate(
        {
            "run_id": public_run_id(dossier.run.run_id),
            "verdict": "valid",
            "entries": len(dossier.chain.records),
            "head": dossier.chain.head.chain.hex(),
            "break": None,
            "integrity": integrity_of(integrity),
            "unwitnessed_age_seconds": integrity.unwitnessed_age_seconds,
            "erased": _erased(dossier.chain),
            "proves": _proved(dossier),
            "does_not_prove": [*DOES_NOT_PROVE, *_times(dossier), *_limits(integrity)],
        }
    )


def _proved(dossier: RunDossier) -> list[str]:
    of_gaps = [PROVES_OF_GAPS] if dossier.chain.is_erased else []
    of_witnesses = [] if dossier.integrity.unwitnessed else [PROVES_OF_WITNESSES]
    return [*PROVES, *of_gaps, *of_witnesses]


def _erased(chain: VerifiedChain) -> ErasedView | None:
    if not chain.is_erased:
        return None
    counted = Counter(name for record in chain.records for name in record.erased)
    return ErasedView(deleted=False, fields=dict(sorted(counted.items())))


def remains_verification(remains: Remains) -> VerificationView:
    """A deleted run: what is left of it holds."""
    integrity = remains.integrity
    return VerificationView.model_validate(
        {
            "run_id": public_run_id(remains.run_id),
            "verdict": "valid",
            "entries": remains.records,
            "head": remains.head.chain.hex(),
            "break": None,
            "integrity": integrity_of(integrity),
            "unwitnessed_age_seconds": integrity.unwitnessed_age_seconds,
            "erased": ErasedView(deleted=True, fields={}),
            "proves": list(PROVES_OF_REMAINS),
            "does_not_prove": [*DOES_NOT_PROVE, *_limits(integrity)],
        }
    )


def _times(dossier: RunDossier) -> list[str]:
    doubt = dossier.times
    if doubt is None:
        return []
    words = NOT_BEFORE if doubt.is_ahead else NOT_AFTER
    return [words.format(seq=doubt.seq, said=doubt.said, at=doubt.seen_at)]


def _limits(integrity: Integrity) -> list[str]:
    unseen = NOT_OF_THE_END.format(count=integrity.unwitnessed, size=integrity.size)
    return [unseen, NOT_BY_ITSELF] if integrity.unwitnessed else [NOT_BY_ITSELF]


def broken_verification(run_id: RunId, found: ChainBreak) -> VerificationView:
    """A run that did not verify: where, and how. Nothing else of it is believed."""
    broken = IntegrityView(
        state=IntegrityState.BROKEN, size=found.seq, witnessed_at=None, unwitnessed=0
    )
    return VerificationView.model_validate(
        {
            "run_id": public_run_id(run_id),
            "verdict": "broken",
            "entries": None,
            "head": None,
            "break": {"seq": found.seq, "reason": found.reason},
            "integrity": broken,
            "unwitnessed_age_seconds": None,
            "erased": None,
            "proves": [],
            "does_not_prove": list(DOES_NOT_PROVE),
        }
    )
