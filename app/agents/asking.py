"""Lets a run wait for somebody's decision on a call, and says what came of it.

An approval is bound to the action that was judged: the call, the label of what it rests on, and the
policy. Whoever changes one of them has another action, and no approval for it.

Threat: Privilege escalation via tool calls
"""

import json
from collections.abc import Mapping
from typing import Final, NoReturn

from app.agents.journal import Journal
from app.agents.progress import AskedCall
from app.domain.approval import ApprovalState, AskRules, public_approval_id
from app.domain.errors import RunParkedError
from app.domain.label import Label
from app.domain.record import ApprovalDecided, ToolDecided
from app.domain.step import ToolCall
from app.domain.verdict import Decision, Deny, ResolvedApproval
from app.policy.gate import DascGate
from app.policy.gate_inputs import ApprovalInput

DENIED: Final = "approval:denied"
EXPIRED: Final = "approval:expired"
TOO_MANY: Final = "approval:too_many_refused"
_GRANTED: Final = frozenset({ApprovalState.APPROVED, ApprovalState.USED})


def action_bytes(call: ToolCall, label: Label, policy_digest: str) -> bytes:
    """The action that is judged, in one spelling."""
    readers = None if label.readers is None else sorted(label.readers)
    action = {
        "tool": call.name,
        "arguments": call.arguments,
        "label": [label.integrity.value, label.confidentiality.value, readers],
        "policy": policy_digest,
    }
    return json.dumps(action, sort_keys=True, separators=(",", ":")).encode("ascii")


def ask_rules(limits: Mapping[str, int]) -> AskRules:
    """What a policy's limits say of asking: `approval_seconds`, `refused_asks`, `on_deny_stops`."""
    built_in = AskRules()
    return AskRules(
        expires_seconds=limits.get("approval_seconds", built_in.expires_seconds),
        on_deny_stops=limits.get("on_deny_stops", 0) > 0,
        most_refused=limits.get("refused_asks", built_in.most_refused),
    )


class Asking:
    """The approvals of one run. `refused`: how many were refused before."""

    def __init__(self, gate: DascGate, journal: Journal, refused: int) -> None:
        self._gate = gate
        self._journal = journal
        self._rules = ask_rules(gate.bundle.limits)
        self._refused = refused

    def ask(self, call: ToolCall, decision: Decision, action: bytes) -> NoReturn:
        """Let the run wait: what is held is recorded with that, in one transaction."""
        self._journal.hold(ToolDecided(call=call, decision=decision))
        self._journal.ask(call.name, action, self._rules.expires_seconds)
        raise RunParkedError

    def refusal(self, asked: AskedCall) -> str | None:
        """Why the call is refused; None when it may be tried. RunParkedError: nobody has decided.

        An approval whose time is over is refused by whoever looks first.
        """
        match asked.state:
            case ApprovalState.PENDING if not asked.is_late:
                raise RunParkedError(until=asked.expires_at)
            case ApprovalState.PENDING:
                self.close(asked, ApprovalState.EXPIRED)
                return EXPIRED
            case ApprovalState.EXPIRED:
                return EXPIRED
            case ApprovalState.DENIED:
                return DENIED
            case ApprovalState.APPROVED | ApprovalState.USED | ApprovalState.VOID:
                return None

    def granted(self, asked: AskedCall | None) -> ResolvedApproval | None:
        """What was approved, as the gate lets it count now; None where it does not."""
        if asked is None or asked.state not in _GRANTED or asked.decided_by is None:
            return None
        verdict = self._gate.approval_resolve(
            ApprovalInput(
                approval_id=public_approval_id(asked.approval_id),
                granted=True,
                requested_by=asked.requested_by,
                decided_by=asked.decided_by,
                digest=asked.digest,
            )
        )
        return None if isinstance(verdict, Deny) else verdict

    def close(self, asked: AskedCall, state: ApprovalState) -> None:
        """Hold that the approval came to this, by nobody's decision."""
        closed = ApprovalDecided(
            approval_id=asked.approval_id, state=state, actor="system", decision=None
        )
        self._journal.hold(closed)

    def ends_the_run(self, code: str) -> str | None:
        """With what code one more refusal ends the run; None when the model is told."""
        self._refused += 1
        if self._rules.on_deny_stops:
            return code
        return TOO_MANY if self._refused >= self._rules.most_refused else None
