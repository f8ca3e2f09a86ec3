"""Stories of whole deployments, told in full: the state machine meets them in any order.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.integration.states.ledger_model import ALL
from tests.integration.states.upheavals import LedgerUpheavals
from tests.support.databases import DatabaseServer, Roles

Story = Callable[[LedgerUpheavals], Awaitable[None]]


async def _told(roles: Roles, directory: Path, story: Story) -> None:
    acts = LedgerUpheavals()
    await acts.open(roles, directory)
    try:
        for tenant in (0, 0, 1):
            await acts.begin(acts.seats[0], tenant)
        for run in acts.runs[:2]:
            await acts.record(run, acts.turns(run, 2))
            await acts.finish(run, speaks=True)
        await story(acts)
        await acts.compare()
        await acts.only_grew()
        await acts.end()
    finally:
        await acts.place.close()


async def _keys_give_way(acts: LedgerUpheavals) -> None:
    first, second, other = acts.runs
    await acts.erase(first, frozenset({"reply"}), crashes=False)
    await acts.sequence()
    await acts.rotate_erasure_key()
    await acts.erase(first, frozenset({"task"}), crashes=False)
    await acts.rotate_enrolment_key()
    await acts.take_over(other, acts.seats[0])
    await acts.erase(second, None, crashes=False)
    await acts.sequence()
    await acts.rotate_erasure_key()
    await acts.rotate_enrolment_key()
    await acts.finish_all()


async def _a_tenant_goes(acts: LedgerUpheavals) -> None:
    await acts.erase(acts.runs[0], frozenset({"reply"}), crashes=False)
    await acts.sequence()
    await acts.delete_tenant(1)  # refused: its run goes on
    await acts.rotate_erasure_key()
    await acts.wind_up(0)
    await acts.delete_tenant(0)
    assert [run.tenant_id for run in acts.runs] == [acts.tenants[1]]
    await acts.begin(acts.seats[0], 0)
    await acts.sequence()
    await acts.sweep()


async def _a_tenant_goes_before_the_log_key(acts: LedgerUpheavals) -> None:
    """The record of the change lists no log that is gone; what was signed of it was signed."""
    await acts.sequence()
    await acts.wind_up(0)
    await acts.delete_tenant(0)
    acts.rotate_log_key()
    await acts.sequence()
    await acts.sweep()


async def _a_backup_comes_back(acts: LedgerUpheavals) -> None:
    first, second, other = acts.runs
    await acts.erase(first, frozenset({"reply"}), crashes=False)
    await acts.sequence()
    await acts.back_up()
    await acts.erase(first, frozenset({"task"}), crashes=False)
    await acts.erase(second, None, crashes=False)
    await acts.rotate_erasure_key()
    await acts.take_over(other, acts.seats[0])
    await acts.finish(other, speaks=True)
    await acts.erase(other, ALL, crashes=False)
    await acts.begin(acts.seats[0], 0)
    await acts.sequence()
    await acts.restore()
    await acts.compare()
    await acts.only_grew()
    await acts.sequence()
    await acts.rotate_enrolment_key()


async def _an_idle_log_is_renamed_after_its_key_gave_way(acts: LedgerUpheavals) -> None:
    """It is signed under its new name as large as it was when the old key signed it last."""
    await acts.sequence()
    acts.rotate_log_key()
    await acts.sequence()
    await _lost_and_recovered(acts)


async def _the_log_key_gave_way_in_what_was_lost(acts: LedgerUpheavals) -> None:
    """The record of it is lost, too, and is made again when all logs have new names."""
    await acts.sequence()
    await _lost_and_recovered(acts, acts.rotate_log_key)


async def _lost_and_recovered(
    acts: LedgerUpheavals, meanwhile: Callable[[], None] = lambda: None
) -> None:
    await acts.back_up()
    meanwhile()
    await acts.take_over(acts.runs[2], acts.seats[0])
    await acts.sequence()
    await acts.restore()
    await acts.sequence()
    await acts.sweep()


async def _a_backup_from_before_the_logs_began_comes_back(acts: LedgerUpheavals) -> None:
    await acts.back_up()
    await acts.erase(acts.runs[0], frozenset({"task"}), crashes=False)
    await acts.sequence()
    await acts.restore()
    await acts.compare()


async def _an_erasure_that_was_refused_in_the_end_is_not_made_up_for(acts: LedgerUpheavals) -> None:
    """Its eraser died between the journal and the commit; then the run was held."""
    run = acts.runs[0]
    await acts.sequence()
    await acts.back_up()
    await acts.erase(run, None, crashes=True)
    await acts.hold_or_release(run)
    await acts.erase(run, None, crashes=False)  # both are refused
    await acts.restore()
    await acts.compare()


async def _a_tenant_comes_back_and_goes_again(acts: LedgerUpheavals) -> None:
    await acts.back_up()
    await acts.wind_up(1)
    await acts.delete_tenant(1)
    await acts.begin(acts.seats[0], 1)
    await acts.wind_up(1)
    await acts.delete_tenant(1)  # that log is in no backup
    await acts.rotate_enrolment_key()
    await acts.begin(acts.seats[0], 1)
    await acts.restore()
    await acts.compare()


@pytest.mark.parametrize(
    "story",
    [
        _keys_give_way,
        _a_tenant_goes,
        _a_tenant_goes_before_the_log_key,
        _a_backup_comes_back,
        _an_idle_log_is_renamed_after_its_key_gave_way,
        _the_log_key_gave_way_in_what_was_lost,
        _a_backup_from_before_the_logs_began_comes_back,
        _an_erasure_that_was_refused_in_the_end_is_not_made_up_for,
        _a_tenant_comes_back_and_goes_again,
    ],
    ids=lambda story: story.__name__.strip("_"),
)
def test_a_story_ends_well(postgres: DatabaseServer, tmp_path: Path, story: Story) -> None:
    asyncio.run(_told(postgres.new_database(), tmp_path, story))
