"""What this deployment offers, and who the caller is."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, JsonValue

from app.api.auth import CallerDep
from app.api.dependencies import ServicesDep
from app.api.entry_views import BudgetView
from app.api.problems import problems
from app.domain.errors import NotFoundError
from app.domain.run import Agent, Budget, Scope
from app.domain.step import Effect, ToolSpec

router = APIRouter(tags=["catalog"])
NamePath = Annotated[str, Path(max_length=64)]


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ToolView(_View):
    """A tool: its closed schema and its effect, or why it is not there."""

    name: str
    description: str
    effect: Effect | None
    parameters: dict[str, JsonValue] | None
    available: bool
    reason: str | None


class ToolList(_View):
    """Every tool this deployment knows."""

    data: list[ToolView]
    has_more: Literal[False]
    next_cursor: None


class AgentView(_View):
    """An agent that can be run."""

    name: str
    description: str
    model: str
    tools: list[str]
    budget: BudgetView


class AgentList(_View):
    """Every agent of this deployment."""

    data: list[AgentView]
    has_more: Literal[False]
    next_cursor: None


class WhoamiView(_View):
    """Who the key stands for. The fingerprint is not the key."""

    tenant: str
    fingerprint: str
    scopes: list[Scope]
    tools: list[str]
    max_budget: BudgetView


@router.get("/tools", responses=problems())
async def list_tools(caller: CallerDep, services: ServicesDep) -> ToolList:
    """Tools with their schemas; those that this machine cannot confine, with the reason."""
    granted = services.tenant_tools(caller.tenant)
    tools = [_tool(spec) for spec in services.tools if spec.name in granted]
    missing = [
        ToolView(
            name=name,
            description="",
            effect=None,
            parameters=None,
            available=False,
            reason=reason,
        )
        for name, reason in services.unavailable_tools.items()
    ]
    return ToolList(data=[*tools, *missing], has_more=False, next_cursor=None)


@router.get("/agents", responses=problems())
async def list_agents(_: CallerDep, services: ServicesDep) -> AgentList:
    """Agents that can be run."""
    agents = [_agent(agent) for agent in services.agents.values()]
    return AgentList(data=agents, has_more=False, next_cursor=None)


@router.get("/agents/{name}", responses=problems(404, 422))
async def get_agent(name: NamePath, _: CallerDep, services: ServicesDep) -> AgentView:
    """One agent."""
    agent = services.agents.get(name)
    if agent is None:
        raise NotFoundError("no such agent")
    return _agent(agent)


@router.get("/whoami", responses=problems())
async def whoami(caller: CallerDep, services: ServicesDep) -> WhoamiView:
    """The tenant, scopes and limits of the key in use."""
    return WhoamiView(
        tenant=caller.tenant,
        fingerprint=caller.fingerprint,
        scopes=sorted(caller.scopes),
        tools=sorted(services.tenant_tools(caller.tenant)),
        max_budget=_budget(services.budget_cap(caller.tenant)),
    )


def _tool(spec: ToolSpec) -> ToolView:
    return ToolView(
        name=spec.name,
        description=spec.description,
        effect=spec.effect,
        parameters=spec.parameters,
        available=True,
        reason=None,
    )


def _agent(agent: Agent) -> AgentView:
    return AgentView(
        name=agent.name,
        description=agent.description,
        model=agent.model,
        tools=list(agent.tools),
        budget=_budget(agent.budget),
    )


def _budget(budget: Budget) -> BudgetView:
    return BudgetView(
        max_steps=budget.max_steps,
        max_tokens=budget.max_tokens,
        max_cost_micros=budget.max_cost_micros,
        max_wall_seconds=budget.max_wall_seconds,
    )
