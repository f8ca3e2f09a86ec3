"""One agent: ask the gate, write down, call the model or a tool, write down, until done.

Every act is preceded by a durable record of the decision that allows it.

Threat: Prompt injection via task input
"""

from collections import Counter
from dataclasses import replace

from app.agents.asking import Asking, action_bytes
from app.agents.labelled_turns import after_call, after_turns, state_at_start
from app.agents.loop_parts import LoopParts
from app.agents.model_retry import wait_seconds
from app.agents.progress import (
    NOTHING_YET,
    AskedCall,
    OpenTurn,
    Progress,
    finished_call,
    refused_call,
    unknown_call,
)
from app.agents.prompts import as_shown, opening_messages, system_text
from app.agents.request_size import estimated_tokens
from app.domain.approval import ApprovalState
from app.domain.errors import ModelError
from app.domain.label import Label
from app.domain.record import (
    ModelRequested,
    ModelResponded,
    OutcomeUnknown,
    RunFinished,
    ToolDecided,
    ToolFinished,
)
from app.domain.run import RunStatus, Usage
from app.domain.step import (
    EFFECTFUL,
    IN_FILES,
    Message,
    ModelReply,
    ModelRequest,
    ReplyMessage,
    ResultsMessage,
    StopReason,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from app.domain.verdict import (
    AdmittedReply,
    AdmittedTask,
    Ask,
    ClearedRequest,
    Deny,
    Obligation,
    Verdict,
)
from app.policy.canary import Canaries
from app.policy.gate_inputs import (
    CallInput,
    OutputInput,
    RequestInput,
    ResponseInput,
    ResultInput,
    RunFacts,
)
from app.providers.prices import upper_bound
from app.providers.provider import ModelFailure

_MAX_OUTPUT_TOKENS = 4096
# A reply that stopped for one of these is no answer: the run fails and says why.
_UNFINISHED = {
    StopReason.REFUSAL: ModelFailure.REFUSED.value,
    StopReason.MAX_TOKENS: ModelFailure.CUT_OFF.value,
}


class AgentLoop:
    """Drives one admitted task to its final record. Raises LedgerError when it may not go on."""

    def __init__(
        self,
        task: AdmittedTask,
        parts: LoopParts,
        *,
        may_instruct: bool,
        since: Progress = NOTHING_YET,
    ) -> None:
        self._task = task
        self._parts = parts
        self._may_instruct = may_instruct
        names = set(task.submission.tools)
        self._offered: tuple[ToolSpec, ...] = tuple(
            spec for spec in parts.toolbox.specs if spec.name in names
        )
        self._state = state_at_start(task.submission, self._offered, may_instruct=may_instruct)
        self._messages: list[Message] = [
            *opening_messages(task.submission, parts.marks),
            *since.turns,
        ]
        self._spent = since.spent
        self._calls_made: Counter[str] = Counter(since.calls_made)
        self._began = parts.monotonic() - since.elapsed_seconds
        self._turn = since.turn
        self._canaries = Canaries.of(filter(None, [parts.marks.canary]))
        self._put_off = since.put_off
        self._next: tuple[ModelRequested, ClearedRequest | Deny] | None = None
        self._asked: tuple[int, ClearedRequest] | None = None
        self._asking = Asking(parts.gate, parts.journal, since.refused_asks)
        self._state = after_turns(self._state, since.turns, self._offered, self._is_suspected)
        for _ in range(since.refused_asks):
            self._state = self._state.refused()

    @property
    def spent(self) -> Usage:
        """What the run has used so far."""
        return self._spent

    @property
    def label(self) -> Label:
        """The label of all that the model has seen so far."""
        return self._state.label

    def may_begin(self) -> bool:
        """Whether the gate allows the request that comes next, which `begin` or `run` records."""
        self._next = self._request()
        return not isinstance(self._next[1], Deny)

    async def begin(self) -> None:
        """Record the first request with whatever is held, in one write; `run` goes on from there.

        As after any record, a LedgerError says that nothing may be done.
        """
        self._asked = await self._ask()

    async def run(self) -> None:
        """Turn after turn until the final record is durable."""
        if self._turn is not None and await self._finish_turn(self._turn):
            return
        asked, self._asked = self._asked, None
        while True:
            if asked is None and (asked := await self._ask()) is None:
                return
            (intent, cleared), asked = asked, None
            try:
                reply = await self._parts.provider.complete(cleared)
            except ModelError as error:
                if await self._is_over(intent, error):
                    return
                continue
            self._put_off = 0
            self._spent = self._spent.plus(reply.usage).plus(Usage(steps=1))
            unfinished = _UNFINISHED.get(reply.stop_reason)
            if unfinished is not None:
                await self._model_failed(intent, unfinished, reply)
                return
            if await self._answered(intent, reply):
                return

    async def _ask(self) -> tuple[int, ClearedRequest] | None:
        """The recorded intent of a model call, or None when the gate ended the run."""
        event, verdict = self._request() if self._next is None else self._next
        self._next = None
        if isinstance(verdict, Deny):
            self._parts.journal.hold(event)
            await self._finish(RunStatus.BLOCKED, verdict.decision.code)
            return None
        return await self._parts.journal.record(event, self._spent), verdict

    def _request(self) -> tuple[ModelRequested, ClearedRequest | Deny]:
        """The next model call as it would be recorded, and what the gate says to it."""
        submission, facts = self._task.submission, self._facts()
        used = self._spent.input_tokens + self._spent.output_tokens
        estimate = self._estimated_input_tokens()
        left = submission.budget.max_tokens - used - estimate
        output = max(1, min(_MAX_OUTPUT_TOKENS, self._parts.price.max_output_tokens, left))
        request = ModelRequest(
            model=submission.model,
            system=system_text(submission, self._parts.marks),
            messages=tuple(as_shown(message, self._parts.marks) for message in self._messages),
            tools=self._offered,
            max_output_tokens=output,
            timeout_seconds=self._parts.model_timeout_seconds,
        )
        verdict = self._parts.gate.llm_request(
            RequestInput(
                request=request,
                facts=facts,
                reserve_tokens=estimate + output,
                reserve_micros=upper_bound(self._parts.price, estimate, output),
            )
        )
        return ModelRequested(request=request, decision=verdict.decision), verdict

    async def _is_over(self, intent: int, error: ModelError) -> bool:
        """Whether the failure of a call ends the run; if not, the wait before the next is over."""
        self._put_off += 1
        retry, budget = self._parts.retry, self._task.submission.budget
        left = budget.max_wall_seconds - self._facts().elapsed_seconds
        wait = wait_seconds(error, self._put_off, left, retry.jitter())
        if wait is None:
            await self._model_failed(intent, error.code, None)
            return True
        await self._parts.journal.record(self._failure(intent, error.code, None), self._spent)
        await retry.pause(wait)
        return False

    async def _model_failed(self, intent: int, code: str, reply: ModelReply | None) -> None:
        self._parts.journal.hold(self._failure(intent, code, reply))
        await self._finish(RunStatus.FAILED, code)

    def _failure(self, intent: int, code: str, reply: ModelReply | None) -> ModelResponded:
        return ModelResponded(
            intent=intent,
            model=self._task.submission.model,
            reply=reply,
            decision=None,
            error_code=code,
        )

    async def _answered(self, intent: int, reply: ModelReply) -> bool:
        """Judge and act on a reply; True when the run is over."""
        verdict = self._parts.gate.llm_response(ResponseInput(reply=reply, facts=self._facts()))
        self._parts.journal.hold(
            ModelResponded(
                intent=intent,
                model=self._task.submission.model,
                reply=reply,
                decision=verdict.decision,
                error_code=None,
            )
        )
        if isinstance(verdict, Deny):
            await self._finish(RunStatus.BLOCKED, verdict.decision.code)
            return True
        if not verdict.reply.calls:
            await self._release(verdict)
            return True
        return await self._finish_turn(OpenTurn(reply=verdict.reply, results=(), pending=None))

    async def _finish_turn(self, turn: OpenTurn) -> bool:
        """Answer the calls that have no result yet, in their order; True when the run is over."""
        results, asked, pending = list(turn.results), turn.asked, turn.pending
        for call, result in zip(turn.reply.calls, turn.results, strict=False):
            suspected = self._is_suspected(result)
            self._state = after_call(
                self._state, call, result, self._offered, is_quarantined=suspected
            )
        for call in turn.reply.calls[len(turn.results) :]:
            if pending is not None:
                answer = await self._settle(call, pending, asked)
            elif asked is not None:
                answer = await self._decided(call, asked)
            else:
                answer = await self._act(call)
            if answer is None:
                return True
            results.append(answer)
            asked = pending = None
        self._messages.append(ReplyMessage(text=turn.reply.text, calls=turn.reply.calls))
        self._messages.append(ResultsMessage(results=tuple(results)))
        return False

    async def _settle(
        self, call: ToolCall, intent: int, asked: AskedCall | None
    ) -> ToolResult | None:
        """A call that a lost process began: made again only where that changes nothing."""
        spec = next((spec for spec in self._offered if spec.name == call.name), None)
        if spec is not None and (spec.effect not in EFFECTFUL or spec.is_idempotent):
            self._calls_made[call.name] -= 1
            return await self._act(call, asked)
        event = OutcomeUnknown(intent=intent, call=call)
        self._parts.journal.hold(event)
        told = unknown_call(event)
        self._state = after_call(self._state, call, told, self._offered)
        return told

    async def _release(self, answer: AdmittedReply) -> None:
        verdict = self._parts.gate.run_output(
            OutputInput(
                text=answer.reply.text,
                output_schema=self._task.submission.output_schema,
                facts=self._facts(),
            )
        )
        if isinstance(verdict, Deny):
            final = RunFinished(
                status=RunStatus.BLOCKED,
                error_code=verdict.decision.code,
                decision=verdict.decision,
            )
        else:
            final = RunFinished(
                status=RunStatus.SUCCEEDED, output=verdict, decision=verdict.decision
            )
        await self._parts.journal.record(final, self._spent)

    async def _decided(self, call: ToolCall, asked: AskedCall) -> ToolResult | None:
        """A call that somebody was asked to decide on; None when the run is over."""
        code = self._asking.refusal(asked)
        if code is None:
            return await self._act(call, asked)
        verdict = self._parts.gate.tool_call(CallInput(call=call, facts=self._facts()))
        decision = replace(verdict.decision, verdict=Verdict.DENY, code=code, is_observed=False)
        refused = ToolDecided(call=call, decision=decision, approval=asked.approval_id)
        self._parts.journal.hold(refused)
        self._state = self._state.refused()
        end = self._asking.ends_the_run(code)
        if end is None:
            return refused_call(refused)
        await self._finish(RunStatus.BLOCKED, end)
        return None

    async def _act(self, call: ToolCall, asked: AskedCall | None = None) -> ToolResult:
        """Make one call if the gate allows it, or somebody did. The ledger hears first.

        RunParkedError when somebody has to be asked.
        """
        granted, journal = self._asking.granted(asked), self._parts.journal
        action = action_bytes(call, self._state.label, self._parts.gate.policy.digest)
        digest = b"" if granted is None else journal.digest(action)
        verdict = self._parts.gate.tool_call(
            CallInput(call=call, facts=self._facts(), approval=granted, digest=digest)
        )
        if asked is not None and granted is not None and isinstance(verdict, Ask | Deny):
            self._asking.close(asked, ApprovalState.VOID)
        if isinstance(verdict, Ask):
            self._asking.ask(call, verdict.decision, action)
        used = None if asked is None or granted is None else asked.approval_id
        decided = ToolDecided(call=call, decision=verdict.decision, approval=used)
        if isinstance(verdict, Deny):
            journal.hold(decided)
            return refused_call(decided)
        self._calls_made[call.name] += 1
        intent = await journal.record(decided, self._spent)
        result = await self._parts.toolbox.run(verdict, await self._parts.files.workspace())
        if verdict.spec.effect in IN_FILES:
            await self._parts.files.keep()
        seen = self._parts.gate.tool_result(ResultInput(result=result, facts=self._facts()))
        finished = ToolFinished(intent=intent, result=result, decision=seen.decision)
        journal.hold(finished)
        told = finished_call(finished)
        self._state = after_call(
            self._state,
            call,
            told,
            self._offered,
            is_quarantined=Obligation.QUARANTINE in seen.decision.obligations,
        )
        return told

    def _is_suspected(self, result: ToolResult) -> bool:
        """Whether the gate would have a result quarantined: the same text, the same answer."""
        seen = self._parts.gate.tool_result(ResultInput(result=result, facts=self._facts()))
        return Obligation.QUARANTINE in seen.decision.obligations

    async def _finish(self, status: RunStatus, code: str) -> None:
        await self._parts.journal.record(RunFinished(status=status, error_code=code), self._spent)

    def _facts(self) -> RunFacts:
        submission = self._task.submission
        return RunFacts(
            offered=self._offered,
            declared=submission.capabilities,
            may_instruct=self._may_instruct,
            budget=submission.budget,
            spent=self._spent,
            elapsed_seconds=self._parts.monotonic() - self._began,
            calls_made=dict(self._calls_made),
            mode=submission.mode,
            state=self._state,
            canaries=self._canaries,
        )

    def _estimated_input_tokens(self) -> int:
        return estimated_tokens(
            self._task.submission.system_prompt, self._messages, len(self._offered)
        )
