"""Reads the questions that the gate was really asked, out of verified ledgers.

A run that does not verify, or of which features are gone, is counted and not guessed at.

Threat: Ledger tampering
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.audit.replay_ledger import ReplayLedger
from app.bundles.simulation import Simulation, StoredQuestion
from app.domain.errors import LedgerBrokenError, NotFoundError, PolicyRefusedError
from app.domain.run import Json, RunFilter, RunId, RunRow, TenantId
from app.ledger.chain import VerifiedRecord
from app.policy.bundle import PolicyBundle

FEATURES: Final = "features"
_PAGE: Final = 100
_MOST_RUNS: Final = 2_000
_UNKNOWN: Final = "none"
_CAME_OF_IT: Final = "weighed"

FindPolicy = Callable[[TenantId, str], Awaitable[PolicyBundle]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which runs are asked about again: the newest `most` that were begun in this time."""

    since: datetime
    until: datetime
    agent: str | None = None
    most: int = _MOST_RUNS


class DecisionHistory:
    """The decisions of a tenant's runs, as questions that can be asked again."""

    def __init__(self, ledger: ReplayLedger, find_policy: FindPolicy) -> None:
        self._ledger = ledger
        self._find_policy = find_policy

    async def replay(
        self, tenant_id: TenantId, simulation: Simulation, since: datetime, until: datetime
    ) -> bool:
        """Put what was asked in this time to a simulation; whether that was all of it."""
        return await self.replay_span(tenant_id, simulation, Span(since=since, until=until))

    async def replay_span(self, tenant_id: TenantId, simulation: Simulation, span: Span) -> bool:
        """As `replay`, of the runs of one span."""
        wanted = RunFilter(agent=span.agent, created_after=span.since, created_before=span.until)
        before: RunId | None = None
        left = span.most
        while left > 0:
            page = await self._ledger.page(
                tenant_id, before=before, wanted=wanted, limit=min(_PAGE, left)
            )
            for run in page:
                await self._add(tenant_id, run, simulation)
                await asyncio.sleep(0)  # others are served between two runs
            if len(page) < min(_PAGE, left):
                return True
            before, left = page[-1].run_id, left - len(page)
        return False

    async def questions(self, tenant_id: TenantId, run_id: RunId) -> list[StoredQuestion]:
        """The decisions of one run in order. NotFoundError; LedgerBrokenError."""
        records = await self._ledger.replay(tenant_id, run_id)
        return stored_questions(run_id, records)

    async def _add(self, tenant_id: TenantId, run: RunRow, simulation: Simulation) -> None:
        try:
            questions = await self.questions(tenant_id, run.run_id)
        except NotFoundError:
            return  # it was deleted a moment ago
        except LedgerBrokenError:
            simulation.add_broken()
            return
        if questions:
            simulation.add_run(questions, await self._own(tenant_id, run.policy_digest))

    async def _own(self, tenant_id: TenantId, digest: str) -> PolicyBundle | None:
        try:
            return await self._find_policy(tenant_id, digest)
        except (NotFoundError, PolicyRefusedError):
            return None


def stored_questions(run_id: RunId, records: Sequence[VerifiedRecord]) -> list[StoredQuestion]:
    """What the gate was asked, as verified records have it."""
    return [
        StoredQuestion(
            run_id=run_id,
            seq=record.seq,
            features=_facts(record.fields.get(FEATURES)),
            is_erased=FEATURES in record.erased,
            policy_digest=_text(decision.get("digest")),
            verdict=_text(decision.get("verdict")),
            rules=_names(decision.get("rules")),
        )
        for record in records
        if isinstance(decision := record.header.get("policy"), dict)
    ]


def _text(value: Json) -> str:
    return value if isinstance(value, str) else _UNKNOWN


def _names(value: Json) -> tuple[str, ...]:
    return tuple(_text(name) for name in value) if isinstance(value, list) else ()


def _facts(value: bytes | None) -> dict[str, Json] | None:
    """What was judged, without what came of it."""
    if value is None:
        return None
    found: Json = json.loads(value)
    if not isinstance(found, dict):
        return None
    return {name: part for name, part in found.items() if name != _CAME_OF_IT}
