"""Turns what a caller sent into a Submission: the catalogue's defaults, the tenant's caps.

Authority is decided here: without the `instruct` scope a task is data and instructions are refused.

Threat: Prompt injection via task input
"""

from app.api.dependencies import ApiServices
from app.api.run_requests import BudgetIn, RunCreate
from app.domain.errors import ForbiddenError, InvalidSubmissionError
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
    declared = body.capabilities
    return Submission(
        instructions=instructions,
        data=data,
        agent=agent.name,
        model=model,
        provider="",
        system_prompt=agent.system_prompt,
        tools=_tools(body, agent, services, caller),
        capabilities=None if declared is None else frozenset(declared.tools),
        budget=_budget(body.budget, agent.budget, services.budget_cap(caller.tenant)),
        output_schema=body.output_schema,
        metadata=body.metadata,
        scrub_phi=services.tenant_scrub_phi(caller.tenant),
        policy=body.policy,
    )


def _authority(body: RunCreate, caller: Caller) -> tuple[str | None, tuple[DataPart, ...]]:
    """What carries authority, and what is only material."""
    data = tuple(DataPart(content=part.content, source=part.source) for part in body.data)
    may_instruct = Scope.INSTRUCT in caller.scopes
    if body.instructions is not None and not may_instruct:
        raise ForbiddenError(Scope.INSTRUCT.value)
    if body.task is None:
        return body.instructions, data
    if may_instruct:
        return body.task, ()
    return None, (DataPart(content=body.task),)


def _tools(body: RunCreate, agent: Agent, services: ApiServices, caller: Caller) -> tuple[str, ...]:
    """The tools asked for, or the agent's as far as the tenant may use them."""
    if body.tools is not None:
        return tuple(dict.fromkeys(body.tools))
    granted = services.tenant_tools(caller.tenant)
    return tuple(name for name in agent.tools if name in granted)


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
