"""Many clients at once, honest and forking, on one witness and on two that share a state."""

import itertools
import random  # noqa: TID251 - seeded, so that a failure can be had again
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2

from tests.support.small_log import NoteKey, SmallLog, root_of
from tests.support.witness_process import WitnessProcess, new_files, witness_process

SIZES = 40
CLIENTS = 8
TRIES = 60


@dataclass(slots=True)
class Tally:
    """What was cosigned, in the order in which each client heard of it, and all statuses."""

    cosigned: list[tuple[SmallLog, int, bytes]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, log: SmallLog, size: int, answer: httpx2.Response) -> None:
        with self.lock:
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self.cosigned.append((log, size, answer.content))


def compete(witness: WitnessProcess, logs: Sequence[SmallLog], tally: Tally, seed: int) -> None:
    """Submit growths of one history or another, always from where the witness says it is."""
    chance = random.Random(seed)
    known, heard = 0, 0
    with witness.client() as client:
        for _ in range(TRIES):
            log = chance.choice(logs)
            size = min(SIZES, known + chance.randint(0, 3))
            answer = client.post("/add-checkpoint", content=log.body(known, size))
            tally.note(log, size, answer)
            if answer.status_code == 200:
                assert size >= heard, "what this client was told before is larger"
                heard = known = size
            elif answer.headers["content-type"] == "text/x.tlog.size":
                known = int(answer.content)
                assert known >= heard, "the witness has forgotten what it cosigned"


def race(witnesses: Sequence[WitnessProcess], logs: Sequence[SmallLog]) -> Tally:
    tally = Tally()
    failed: list[BaseException] = []

    def one(seed: int) -> None:
        try:
            compete(witnesses[seed % len(witnesses)], logs, tally, seed)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert tally.statuses.keys() <= {200, 409, 422}  # who has to wait is not sent away
    return tally


def assert_one_history(witness: WitnessProcess, tally: Tally) -> None:
    """Every two cosigned checkpoints are of one tree, and the newest is what is remembered."""
    assert tally.cosigned
    for log, size, line in tally.cosigned:
        witness.holds(line, log, size)
    largest, size = max(
        ((log, size) for log, size, _ in tally.cosigned), key=lambda found: found[1]
    )
    whole = largest.leaves(size)
    for log, smaller, _ in tally.cosigned:
        assert root_of(log.leaves(smaller)) == root_of(whole[:smaller])
    assert witness.latest(largest).startswith(largest.text(size))


def test_racing_clients_get_one_history() -> None:
    key = NoteKey("logs.test/race")
    logs = [SmallLog(key), SmallLog(key, "second", 9), SmallLog(key, "third", 9)]
    with new_files() as files, witness_process(files, logs[:1]) as witness:
        tally = race([witness], logs)
        assert_one_history(witness, tally)
        assert tally.statuses[409] + tally.statuses[422] > 0


def test_two_processes_on_one_state_give_one_history() -> None:
    key = NoteKey("logs.test/twins")
    logs = [SmallLog(key), SmallLog(key, "second", 5)]
    with (
        new_files() as files,
        witness_process(files, logs[:1]) as one,
        witness_process(files, logs[:1]) as two,
    ):
        tally = race([one, two], logs)
        assert_one_history(one, tally)
        assert_one_history(two, tally)


def test_of_two_growths_from_one_size_exactly_one_wins() -> None:
    """The race that tlog-witness tells: N and N+K are both proven from the same old size."""
    key = NoteKey("logs.test/pair")
    log, fork = SmallLog(key), SmallLog(key, "forked", 1)
    with new_files() as files, witness_process(files, [log]) as witness:
        with witness.client() as client:
            assert client.post("/add-checkpoint", content=log.body(0, 1)).status_code == 200
        for old in range(1, 31, 3):
            tally = Tally()
            barrier = threading.Barrier(4)

            def one(size: int, tally: Tally = tally, barrier: threading.Barrier = barrier) -> None:
                with witness.client() as client:
                    client.get("/checkpoint?origin=x")  # connected before the start
                    barrier.wait()
                    answer = client.post("/add-checkpoint", content=log.body(old, size))  # noqa: B023 - joined in this round
                    tally.note(log, size, answer)

            threads = [threading.Thread(target=one, args=(old + n,)) for n in (1, 2, 3, 3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert tally.statuses == {200: 1, 409: 3}
            ((_, size, _),) = tally.cosigned
            assert witness.latest(log).startswith(log.text(size))
            with witness.client() as client:  # to where the next round begins, and no further
                assert client.post("/add-checkpoint", content=fork.body(size, 40)).status_code == (
                    422
                )
                content = log.body(size, old + 3)
                assert client.post("/add-checkpoint", content=content).status_code == 200


def test_the_tests_own_log_can_fork() -> None:
    key = NoteKey("logs.test/self")
    honest, fork = SmallLog(key), SmallLog(key, "forked", 3)
    for size in itertools.chain(range(4), (9,)):
        same = root_of(honest.leaves(size)) == root_of(fork.leaves(size))
        assert same == (size <= 3)
