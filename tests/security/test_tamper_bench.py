"""The attack bench at its reduced counts.

Threat: Ledger tampering
"""

import pytest

from bench.tamper_bench import bench
from bench.tampering.ablation import REMOVALS, Removal, lost
from bench.tampering.attack import Outcome
from bench.tampering.attack_list import COUNT, NOT_OFFERED
from bench.tampering.parts import Part
from tests.support.databases import DatabaseServer

SEED = 20260101


@pytest.fixture(scope="module")
def told(postgres: DatabaseServer) -> Part:
    return bench(postgres, SEED, full=False)


def test_no_attack_stays_undetected(told: Part) -> None:
    missed = [trial for trial in told.tally.trials if trial.outcome is Outcome.UNDETECTED]
    assert told.tally.trials
    assert not missed


def test_every_class_that_is_offered_is_attacked(told: Part) -> None:
    attacked = {trial.number for trial in told.tally.trials}
    assert attacked == set(range(1, COUNT + 1)) - NOT_OFFERED.keys()


def test_every_attack_is_told_by_a_detector_that_the_table_names(told: Part) -> None:
    assert not [trial for trial in told.tally.trials if trial.outcome is Outcome.ELSEWHERE]


def test_no_honest_run_is_accused(told: Part) -> None:
    assert told.tally.controls.total() >= 100
    assert len(told.tally.controls) >= 11  # each kind of honest trouble
    for role in ("log", "enrolment", "erasure"):
        assert told.tally.controls[f"a rotation of the {role} key"]
        assert told.tally.controls[f"a rotation of the {role} key, exported and verified offline"]
    assert not told.tally.false_alarms


def test_no_blind_change_gives_another_answer_that_is_believed(told: Part) -> None:
    assert told.mutations.made >= 40
    assert told.mutations.detected
    assert not told.mutations.undetected


def test_with_all_layers_nothing_slips_through(told: Part) -> None:
    assert not lost(told.tally.trials, frozenset())


@pytest.mark.parametrize("removed", REMOVALS, ids=lambda removal: removal.name)
def test_without_a_layer_the_listed_classes_slip_through(told: Part, removed: Removal) -> None:
    assert removed.lost
    assert set(lost(told.tally.trials, removed.layers)) == removed.lost
