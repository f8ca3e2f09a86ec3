"""Holds: what an append brings with it to forbid the erasure of a run, or to allow it again."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.run import Json, RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHold:
    """Companion: nothing of this run may be erased from now on."""

    held_run: RunId
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHold:
    """Companion: the run may be erased again. The append is refused when there is no hold."""

    held_run: RunId


def hold_json(item: SetHold | ReleaseHold) -> dict[str, Json]:
    """The companion as `ledger_append` takes it."""
    match item:
        case SetHold():
            return {
                "op": "hold.set",
                "held_run": str(item.held_run),
                "reason": item.reason,
                "actor": item.actor,
                "at": item.at.isoformat(),
            }
        case ReleaseHold():
            return {"op": "hold.release", "held_run": str(item.held_run)}
