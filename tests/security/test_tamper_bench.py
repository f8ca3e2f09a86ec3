"""The attack bench at its reduced counts.

Threat: Ledger tampering
"""

import asyncio

import pytest

from bench.tamper_bench import bench
from bench.tampering.attack import Outcome
from bench.tampering.blind_mutator import Mutations
from bench.tampering.campaign import Tally
from tests.support.databases import DatabaseServer

SEED = 20260101


@pytest.fixture(scope="module")
def told(postgres: DatabaseServer) -> tuple[Tally, Mutations, str]:
    first, second = postgres.new_database(), postgres.new_database()
    return asyncio.run(bench(first, second, SEED, full=False))


def test_no_attack_stays_undetected(told: tuple[Tally, Mutations, str]) -> None:
    missed = [trial for trial in told[0].trials if trial.outcome is Outcome.UNDETECTED]
    assert told[0].trials
    assert not missed


def test_every_attack_is_told_by_a_detector_that_the_table_names(
    told: tuple[Tally, Mutations, str],
) -> None:
    assert not [trial for trial in told[0].trials if trial.outcome is Outcome.ELSEWHERE]


def test_no_honest_run_is_accused(told: tuple[Tally, Mutations, str]) -> None:
    assert told[0].controls >= 40
    assert not told[0].false_alarms


def test_no_blind_change_gives_another_answer_that_is_believed(
    told: tuple[Tally, Mutations, str],
) -> None:
    mutations = told[1]
    assert mutations.made >= 40
    assert mutations.detected
    assert not mutations.undetected
