"""Turns what a caller sent into a Submission: the catalogue's defaults, the tenant's caps.

Authority is decided here: without the `instruct` scope a task is data and instructions are refused.

Threat: Prompt injection via task input
"""

from collections.abc import Sequence
from decimal import Decimal

from app.api.dependencies import ApiServices
from app.api.run_requests import BudgetIn, CapabilitiesIn, DataPartIn, RunCreate
from app.domain.capability import Capabilities
from app.domain.errors import ForbiddenError, InvalidSubmissionError
from app.domain.label import Confidentiality, Integrity, Label, is_trusted
from app.domain.mode import Mode, may_tighten
from app.domain.run import Agent, Budget, Caller, DataPart, Scope, Submission


def submission_of(body: RunCreate, caller: Caller, services: ApiServices) -> Submission:
    """The submission as the gate will see it.

    ForbiddenError: instructions without `instruct`. InvalidSubmissionError: no such agent.
    """
    agent = services.agents.get(body.agent or services.default_agent)
    if agent is None:
        raise InvalidSubmissionError("/agent", "this deployment does not offer that agent")
    instructions, data = _authority(body, caller)
    model = body.model or agent.model
    declared = _declared(body)
    bounds = services.bounds_of(caller, agent.name)
    return Submission(
        instructions=instructions,
        data=data,
        agent=agent.name,
        model=model,
        provider="",
        system_prompt=agent.system_prompt,
        tools=_tools(body, agent, bounds),
        capabilities=declared.tools,
        budget=_budget(body.budget, agent.budget, services.budget_cap(caller.tenant)),
        output_schema=body.output_schema,
        metadata=body.metadata,
        scrub_phi=services.tenant_scrub_phi(caller.tenant),
        authority=bounds.meet(declared),
        mode=_mode(body, services.mode_of(caller, agent.name)),
        policy=body.policy,
    )


def _authority(body: RunCreate, caller: Caller) -> tuple[str | None, tuple[DataPart, ...]]:
    """What carries authority, and what is only material."""
    may_instruct = Scope.INSTRUCT in caller.scopes
    data = tuple(_part(part, may_instruct=may_instruct) for part in body.data)
    if body.instructions is not None and not may_instruct:
        raise ForbiddenError(Scope.INSTRUCT.value)
    if body.task is None:
        return body.instructions, data
    if may_instruct:
        return body.task, ()
    return None, (DataPart(content=body.task),)


def _part(part: DataPartIn, *, may_instruct: bool) -> DataPart:
    """Material with its label. ForbiddenError: more trust than the key itself has."""
    plain = Label()
    integrity = plain.integrity if part.integrity is None else Integrity(part.integrity)
    if is_trusted(integrity) and not may_instruct:
        raise ForbiddenError(Scope.INSTRUCT.value)
    said = part.confidentiality
    confidentiality = plain.confidentiality if said is None else Confidentiality(said)
    label = Label(integrity=integrity, confidentiality=confidentiality)
    return DataPart(content=part.content, source=part.source, label=label)


def _declared(body: RunCreate) -> Capabilities:
    said = body.capabilities or CapabilitiesIn()
    return Capabilities(
        tools=_set(said.tools),
        recipients=_set(said.recipients),
        domains=_set(said.domains),
        paths=_set(said.paths),
        max_amount=None if said.max_amount is None else Decimal(str(said.max_amount)),
        max_calls=dict(said.max_calls),
        readers=_set(said.readers),
    )


def _set(names: Sequence[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _mode(body: RunCreate, granted: Mode) -> Mode:
    """The mode of the run. InvalidSubmissionError for one that is looser than the tenant's."""
    if body.mode is None:
        return granted
    asked = Mode(body.mode)
    if not may_tighten(granted, asked):
        raise InvalidSubmissionError("/mode", f"the mode here is {granted.value} at least")
    return asked


def _tools(body: RunCreate, agent: Agent, bounds: Capabilities) -> tuple[str, ...]:
    """The tools asked for, or the agent's as far as the tenant may use them."""
    if body.tools is not None:
        return tuple(dict.fromkeys(body.tools))
    granted = bounds.tools
    return tuple(name for name in agent.tools if granted is None or name in granted)


def _budget(asked: BudgetIn | None, agent: Budget, cap: Budget) -> Budget:
    """The smallest of what was asked, what the agent has and what the tenant may use."""
    wanted = asked or BudgetIn()
    return Budget(
        max_steps=_least(wanted.max_steps, agent.max_steps, cap.max_steps),
        max_tokens=_least(wanted.max_tokens, agent.max_tokens, cap.max_tokens),
        max_cost_micros=_least(wanted.max_cost_micros, agent.max_cost_micros, cap.max_cost_micros),
        max_wall_seconds=_least(
            wanted.max_wall_seconds, agent.max_wall_seconds, cap.max_wall_seconds
        ),
    )


def _least(asked: int | None, *limits: int) -> int:
    return min(limits) if asked is None else min(asked, *limits)
