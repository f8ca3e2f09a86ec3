"""What a person approved of is one action, and undoes no denial.

Threat: Privilege escalation via tool calls
"""

from dataclasses import replace

import pytest

from app.agents.asking import action_bytes
from app.domain.label import Integrity, Label
from app.domain.step import ToolCall
from app.domain.verdict import Ask, AuthorizedCall, Deny, ResolvedApproval
from app.policy.gate import GRANTED, DascGate
from app.policy.gate_inputs import ApprovalInput, CallInput
from tests.support.asking_policy import RULE, asking
from tests.support.planted_rules import call_of, facts_with

ASKED = CallInput(call=call_of(), facts=facts_with())
GATE = DascGate(asking(ASKED.call.name))
HERE, ELSEWHERE = b"h" * 32, b"e" * 32


def _resolved(*, granted: bool = True, digest: bytes = HERE) -> ResolvedApproval:
    answer = GATE.approval_resolve(
        ApprovalInput(
            approval_id="apr_1",
            granted=granted,
            requested_by="key:1",
            decided_by="key:2",
            digest=digest,
        )
    )
    assert isinstance(answer, ResolvedApproval)
    return answer


def test_an_approved_action_is_let_through_and_says_by_what() -> None:
    answer = GATE.tool_call(replace(ASKED, approval=_resolved(), digest=HERE))
    assert isinstance(answer, AuthorizedCall)
    assert (answer.decision.code, answer.decision.rules) == (GRANTED, (RULE,))


@pytest.mark.parametrize(
    ("approval", "digest"),
    [
        (None, HERE),
        (_resolved(granted=False), HERE),
        (_resolved(), ELSEWHERE),
        (_resolved(digest=ELSEWHERE), HERE),
        (_resolved(), b""),
        (_resolved(digest=b""), b""),
    ],
)
def test_anything_else_still_asks(approval: ResolvedApproval | None, digest: bytes) -> None:
    assert isinstance(GATE.tool_call(replace(ASKED, approval=approval, digest=digest)), Ask)


def test_an_approval_undoes_no_denial() -> None:
    unknown = replace(ASKED.call, name="nobodys_tool")
    answer = GATE.tool_call(replace(ASKED, call=unknown, approval=_resolved(), digest=HERE))
    assert isinstance(answer, Deny)


def test_another_argument_label_tool_or_policy_is_another_action() -> None:
    call, label = ToolCall(call_id="c", name="write_file", arguments={"path": "a"}), Label()
    first = action_bytes(call, label, "p")
    others = [
        action_bytes(replace(call, arguments={"path": "b"}), label, "p"),
        action_bytes(replace(call, name="other"), label, "p"),
        action_bytes(call, Label(integrity=Integrity.QUARANTINED), "p"),
        action_bytes(call, Label(readers=frozenset({"ann"})), "p"),
        action_bytes(call, label, "q"),
    ]
    assert len({first, *others}) == 6
    assert action_bytes(replace(call, call_id="d"), label, "p") == first
