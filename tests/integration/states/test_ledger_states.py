"""Append, crash, resume, erase, rotate, restore, verify in any order: what was said stays true.

Hypothesis chooses the order; a model keeps what the ledger acknowledged. Everything is the real
part: writers whose connections are cut, the eraser, the leader's term, the reader, the auditor, the
offline verifier. MESHFLOW_PROOF=1 raises the examples from 16 to 150 and doubles their length.

Threat: Ledger tampering
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.integration.states.ledger_acts import owned, unowned
from tests.integration.states.ledger_model import ALL, RunModel
from tests.integration.states.lifeline import PATIENCE_SECONDS, Fate
from tests.integration.states.upheavals import LedgerUpheavals
from tests.support.databases import DatabaseServer

IS_PROOF = os.getenv("MESHFLOW_PROOF") == "1"
SETTINGS = settings(
    max_examples=150 if IS_PROOF else 16,
    stateful_step_count=50 if IS_PROOF else 25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=list(Phase) if IS_PROOF else [Phase.generate],  # making a failure small takes minutes
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
PARTS = st.sampled_from([ALL, frozenset({"task"}), frozenset({"reply"}), frozenset({"output"})])
PICK = st.integers(0, 7)
T = TypeVar("T")
Do = Callable[[Any], bool]


def any_run(is_so: Callable[[RunModel], bool]) -> Do:
    return lambda self: any(is_so(run) for run in self.acts.runs)


def nothing_is_late(self: Any) -> bool:
    return all(run.late is None for run in self.acts.runs)


class LedgerStates(RuleBasedStateMachine):
    """The rules, and what must be so after each."""

    postgres: DatabaseServer

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="mf-states-")
        self._runner = asyncio.Runner()
        self.acts = LedgerUpheavals()
        roles = self.postgres.new_database()
        self._do(self.acts.open(roles, Path(self._directory.name)))

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asyncio.wait_for(coroutine, 2 * PATIENCE_SECONDS))

    def _pick(self, pick: int, is_so: Callable[[RunModel], bool]) -> RunModel:
        found = [run for run in self.acts.runs if is_so(run)]
        return found[pick % len(found)]

    # Writing

    @initialize(speaks=st.booleans())
    def begin_with_some_runs(self, *, speaks: bool) -> None:
        """One is over, two go on: otherwise most of an example would be spent on getting there."""
        for tenant in (0, 0, 1):
            self._do(self.acts.begin(self.acts.seats[0], tenant))
        self.append(0, 1)
        self.finish(0, speaks=speaks)

    @precondition(lambda self: len(self.acts.runs) < 8)
    @rule(pick=PICK, tenant=st.integers(0, 1))
    def open_run(self, pick: int, tenant: int) -> None:
        self._do(self.acts.begin(self.acts.seats[pick % len(self.acts.seats)], tenant))

    @precondition(any_run(owned))
    @rule(pick=PICK, turns=st.integers(1, 3))
    def append(self, pick: int, turns: int) -> None:
        run = self._pick(pick, owned)
        self._do(self.acts.record(run, self.acts.turns(run, turns)))

    @precondition(any_run(owned))
    @rule()
    def append_to_all_at_once(self) -> None:
        self._do(self.acts.append_to_all())

    @precondition(any_run(owned))
    @rule(pick=PICK, speaks=st.booleans())
    def finish(self, pick: int, *, speaks: bool) -> None:
        self._do(self.acts.finish(self._pick(pick, owned), speaks=speaks))

    # Crashing and resuming

    @precondition(any_run(owned))
    @rule(pick=PICK)
    def crash_between_appends(self, pick: int) -> None:
        self._do(self.acts.lose(self.acts.seats[pick % len(self.acts.seats)]))

    @precondition(any_run(owned))
    @rule(pick=PICK, together=st.booleans())
    def crash_and_what_was_sent_is_lost(self, pick: int, *, together: bool) -> None:
        self._crash(pick, Fate.LOST, together=together)

    @precondition(any_run(owned))
    @rule(pick=PICK, together=st.booleans())
    def crash_and_nobody_hears_that_it_was_written(self, pick: int, *, together: bool) -> None:
        self._crash(pick, Fate.CARRIED_OUT, together=together)

    @precondition(any_run(owned))
    @rule(pick=PICK, together=st.booleans())
    def crash_and_what_was_sent_is_late(self, pick: int, *, together: bool) -> None:
        self._crash(pick, Fate.LATE, together=together)

    @precondition(any_run(owned))
    @rule(pick=PICK, together=st.booleans())
    def what_was_sent_meets_the_next_owner(self, pick: int, *, together: bool) -> None:
        runs = self._crash(pick, Fate.LATE, together=together)
        self._do(self.acts.take_over(runs[0], self.acts.seats[0]))
        self._do(self.acts.arrive(runs[0]))

    def _crash(self, pick: int, fate: Fate, *, together: bool) -> list[RunModel]:
        first = self._pick(pick, owned)
        runs = [run for run in self.acts.runs if owned(run) and run.seat is first.seat]
        runs = runs if together else [first]
        self._do(self.acts.crash(runs, fate))
        return runs

    @precondition(lambda self: len(self.acts.seats) < 2)
    @rule()
    def one_more_process(self) -> None:
        self._do(self.acts.one_more())

    @precondition(any_run(unowned))
    @rule(pick=PICK, seat=PICK)
    def resume(self, pick: int, seat: int) -> None:
        run = self._pick(pick, unowned)
        self._do(self.acts.take_over(run, self.acts.seats[seat % len(self.acts.seats)]))

    @precondition(any_run(owned))
    @rule(pick=PICK)
    def take_over_from_the_living(self, pick: int) -> None:
        """The owner fell silent, and speaks again later."""
        self._do(self.acts.usurp(self._pick(pick, owned)))

    @precondition(any_run(lambda run: run.late is not None and run.late.has_late))
    @rule(pick=PICK)
    def what_was_late_arrives(self, pick: int) -> None:
        run = self._pick(pick, lambda run: run.late is not None and run.late.has_late)
        self._do(self.acts.arrive(run))

    # Rotating

    @precondition(lambda self: self.acts.log_keys < 4)
    @rule()
    def rotate_the_log_key(self) -> None:
        self.acts.rotate_log_key()

    @precondition(any_run(owned))
    @rule(pick=PICK)
    def a_process_leaves_and_another_comes(self, pick: int) -> None:
        """Its key signs no more, and the next leader records that."""
        self._do(self.acts.leave(self.acts.seats[pick % len(self.acts.seats)]))

    @precondition(lambda self: not self.acts.waiting)
    @precondition(lambda self: self.acts.rotations < 3 and nothing_is_late(self))
    @rule()
    def rotate_the_enrolment_key(self) -> None:
        """Everybody stops for that; what goes on is taken over."""
        self._do(self.acts.rotate_enrolment_key())

    @precondition(lambda self: self.acts.rotations < 3 and nothing_is_late(self))
    @rule()
    def rotate_the_erasure_key(self) -> None:
        """Between two erasures, and nobody stops."""
        self._do(self.acts.rotate_erasure_key())

    @precondition(lambda self: bool(self.acts.pending))
    @rule()
    def end_the_keys_of_what_was_erased(self) -> None:
        self._do(self.acts.end_keys())

    # Sequencing

    @precondition(lambda self: not self.acts.is_fresh)
    @rule()
    def sequence(self) -> None:
        self._do(self.acts.sequence())

    # Erasing

    @precondition(any_run(lambda run: run.is_over))
    @rule(pick=PICK, fields=PARTS, crashes=st.booleans())
    def anonymize(self, pick: int, fields: frozenset[str], *, crashes: bool) -> None:
        run = self._pick(pick, lambda run: run.is_over)
        self._do(self.acts.erase(run, fields, crashes=crashes))

    @precondition(any_run(lambda run: run.is_over))
    @rule(pick=PICK, crashes=st.booleans())
    def delete(self, pick: int, *, crashes: bool) -> None:
        run = self._pick(pick, lambda run: run.is_over)
        self._do(self.acts.erase(run, None, crashes=crashes))

    @precondition(any_run(lambda run: not run.is_over))
    @rule(pick=PICK, fields=st.none() | PARTS)
    def erase_what_goes_on(self, pick: int, fields: frozenset[str] | None) -> None:
        run = self._pick(pick, lambda run: not run.is_over)
        self._do(self.acts.erase(run, fields, crashes=False))

    @precondition(any_run(lambda run: not run.is_deleted))
    @rule(pick=PICK)
    def hold_or_release(self, pick: int) -> None:
        run = self._pick(pick, lambda run: not run.is_deleted)
        self._do(self.acts.hold_or_release(run))
        if run.is_held:
            self._do(self.acts.erase(run, None, crashes=False))

    @precondition(lambda self: bool(self.acts.waiting or self.acts.pending))
    @rule()
    def the_eraser_starts_again(self) -> None:
        """It carries on with what was asked, and erases again what only the journal knows of."""
        self._do(self.acts.restart_eraser())

    @precondition(lambda self: not self.acts.waiting and nothing_is_late(self))
    @rule(tenant=st.integers(0, 1), winds_up=st.booleans())
    def delete_tenant(self, tenant: int, *, winds_up: bool) -> None:
        if winds_up:
            self._do(self.acts.wind_up(tenant))
        self._do(self.acts.delete_tenant(tenant))

    # Backups

    @precondition(lambda self: not self.acts.waiting and nothing_is_late(self))
    @precondition(lambda self: self.acts.backup is None and not self.acts.restores)
    @rule()
    def back_up(self) -> None:
        self._do(self.acts.back_up())

    @precondition(lambda self: not self.acts.waiting and nothing_is_late(self))
    @precondition(lambda self: self.acts.backup is not None)
    @rule()
    def restore_the_backup(self) -> None:
        """An older copy of the database; then what was erased since is erased again."""
        self._do(self.acts.restore())

    # Verifying

    @precondition(any_run(lambda run: bool(run.records)))
    @rule(pick=PICK, seat=PICK)
    def read(self, pick: int, seat: int) -> None:
        run = self._pick(pick, lambda run: bool(run.records))
        self._do(self.acts.read(run, self.acts.seats[seat % len(self.acts.seats)]))

    @precondition(any_run(lambda run: not run.is_deleted))
    @rule(pick=PICK)
    def verify_offline(self, pick: int) -> None:
        run = self._pick(pick, lambda run: not run.is_deleted)
        self._do(self.acts.verify_offline(run))

    @precondition(lambda self: self.acts.is_fresh)
    @rule()
    def sweep(self) -> None:
        self._do(self.acts.sweep())

    # What is always so

    @invariant()
    def what_was_said_is_there_and_nothing_else(self) -> None:
        self._do(self.acts.compare())

    @invariant()
    def no_hash_ever_changes_and_no_log_gets_shorter(self) -> None:
        self._do(self.acts.only_grew())

    def teardown(self) -> None:
        """Every road ends here: all of it is settled, read, swept and verified offline."""
        try:
            self._do(self.acts.end())
        finally:
            self._do(self.acts.place.close())
            self._runner.close()
            self._directory.cleanup()


def test_what_the_ledger_said_stays_true_in_any_order(postgres: DatabaseServer) -> None:
    class Here(LedgerStates):
        """The rules on this test's server."""

    Here.postgres = postgres
    run_state_machine_as_test(Here, settings=SETTINGS)
