"""What the end of a worker means for its call, and the sentence that says it; pure."""

from dataclasses import fields
from functools import lru_cache
from typing import Final, assert_never

from app.sandbox.execution import EndedBy, ExecLimits, ExecResult, ExecStatus
from app.sandbox.worker_protocol import Done, Ended

OVER_QUOTA: Final = "the workspace held more than its quota and was emptied"
REMOVED_TOO_MUCH: Final = "the program's files, with those it had removed, were over the quota"


def judged(done: Done, *, overflowed: bool) -> tuple[ExecStatus, EndedBy | None, str]:
    """What the end of a worker means, and the sentence that says it."""
    if overflowed:
        return ExecStatus.KILLED, EndedBy.OUTPUT_LIMIT, "the program wrote more than it may"
    match done.ended:
        case Ended.EXITED:
            return (ExecStatus.ERROR if done.exit_code else ExecStatus.OK), None, ""
        case Ended.SIGNALLED:
            return ExecStatus.KILLED, EndedBy.SIGNAL, f"the program died of signal {done.signal}"
        case Ended.DEADLINE:
            return ExecStatus.TIMEOUT, EndedBy.DEADLINE, "the program ran out of time"
        case Ended.CPU_LIMIT:
            return ExecStatus.TIMEOUT, EndedBy.CPU_LIMIT, "the program ran out of processor time"
        case Ended.QUOTA:
            return ExecStatus.KILLED, EndedBy.WORKSPACE_QUOTA, REMOVED_TOO_MUCH
        case Ended.ASKED:
            return ExecStatus.TIMEOUT, EndedBy.WORKER, "the program was stopped"
        case Ended.NOT_CONFINED:
            return ExecStatus.UNAVAILABLE, EndedBy.CONFINEMENT, done.problem
        case _:
            assert_never(done.ended)


def not_run(status: ExecStatus, ended_by: EndedBy, reason: str) -> ExecResult:
    """The result of a call that nothing ran for."""
    return ExecResult(status=status, ended_by=ended_by, reason=reason)


@lru_cache(maxsize=64)
def capped(asked: ExecLimits, most: ExecLimits) -> ExecLimits:
    """What was asked for, and never more than the profile gives."""
    return ExecLimits(
        **{
            limit.name: min(getattr(asked, limit.name), getattr(most, limit.name))
            for limit in fields(ExecLimits)
        }
    )
