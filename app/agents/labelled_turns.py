"""Keeps the label state of a run as its turns go by, live and when a run is taken over.

One way for both: what the state is depends on the transcript alone.

Threat: Prompt injection via task input
"""

import re
from collections.abc import Callable, Iterable, Sequence

from app.domain.capability import Capabilities
from app.domain.run import Submission
from app.domain.step import ReplyMessage, ResultsMessage, ToolCall, ToolResult, ToolSpec
from app.policy.authority import Authority, LabelledPart
from app.policy.label_state import LabelState

# Exactly the words of `refused_call`, which can carry nothing of anybody else's.
_REFUSED = re.compile(r"refused by policy \([a-z0-9_.:-]{1,100}\)", re.ASCII)


def state_at_start(
    submission: Submission, offered: Sequence[ToolSpec], *, may_instruct: bool
) -> LabelState:
    """What is known before the first turn: who said what, and what was declared."""
    # Whoever made the submission by hand may have left the levels out; what it declares holds.
    effective = submission.authority.meet(Capabilities(tools=submission.capabilities))
    return LabelState.start(
        Authority(
            instructions=submission.instructions if may_instruct else None,
            data=tuple(
                LabelledPart(content=part.content, label=part.label) for part in submission.data
            ),
            capabilities=effective,
            is_declared=submission.capabilities is not None,
            granted=effective.tools,
            catalogue=tuple(offered),
        )
    )


def after_call(
    state: LabelState,
    call: ToolCall,
    result: ToolResult,
    offered: Iterable[ToolSpec],
    *,
    is_quarantined: bool = False,
) -> LabelState:
    """The state once the model was told what a call came to; a refused call changes nothing."""
    spec = next((spec for spec in offered if spec.name == call.name), None)
    if spec is None or (result.is_error and _REFUSED.fullmatch(result.content)):
        return state
    return state.observed(
        call, spec, result.content, is_error=result.is_error, is_quarantined=is_quarantined
    )


def after_turns(
    state: LabelState,
    turns: Iterable[ReplyMessage | ResultsMessage],
    offered: Sequence[ToolSpec],
    is_suspected: Callable[[ToolResult], bool] = lambda _: False,
) -> LabelState:
    """The state at the end of these turns; `is_suspected` says again what was said of a result."""
    calls: tuple[ToolCall, ...] = ()
    for turn in turns:
        match turn:
            case ReplyMessage():
                calls = turn.calls
            case ResultsMessage():
                for call, result in zip(calls, turn.results, strict=False):
                    suspected = is_suspected(result)
                    state = after_call(state, call, result, offered, is_quarantined=suspected)
    return state
