"""A writer that was retired signs nothing any more, wherever its record stands in the log."""

import pytest

from app.audit.retired_writers import outlived_break, retired_break
from app.domain.errors import ChainBreak
from app.keys.signing_keys import SigningKey
from app.ledger.chain import StoredBatch, StoredRecord, StoredRun
from app.ledger.enrolment import writer_statement
from app.ledger.key_statements import KeyChange
from app.storage.place_store import LogState, Placement, RunPlaces, SignedHead

LOG, RUN, BATCH, WRITER = b"l" * 16, b"r" * 16, b"b" * 16, b"w" * 16
HASH = bytes(32)
FOUND = ChainBreak(seq=1, reason="the writer of a batch had been retired")
OUTLIVED = "the writer of a batch rests on an enrolment key that had given way"
OLD, NEW = SigningKey(b"o" * 32), SigningKey(b"n" * 32)
ENROLMENT = [OLD.public_key, NEW.public_key]
PUBLIC = b"p" * 32


def stored(certifier: SigningKey = OLD) -> StoredRun:
    """Two records by one writer."""
    records = [
        StoredRecord(
            seq=seq,
            epoch=1,
            kind="x",
            at=None,
            header=b"{}",
            rc=HASH,
            chain=HASH,
            batch_id=BATCH,
        )
        for seq in (0, 1)
    ]
    batch = StoredBatch(
        batch_id=BATCH,
        writer=WRITER,
        count=2,
        ranges=b"",
        entries=None,
        tip=HASH,
        signature=bytes(64),
        public_key=PUBLIC,
        certificate=certifier.sign(writer_statement(WRITER, PUBLIC)),
    )
    return StoredRun(
        log=LOG,
        run=RUN,
        records=records,
        fields=[],
        batches={BATCH: batch},
        ended=False,
        entries=None,
    )


def placed(places: dict[int, int], signed: int) -> Placement:
    """Where the records stand, in a log that is signed up to a size."""
    head = SignedHead(origin="o", size=signed, root=HASH, note="", anchor_run=None, anchor_seq=None)
    state = LogState(
        origin="o", size=50, root=HASH, recovery=0, has_other_names=False, checkpoint=head
    )
    return Placement(
        places=RunPlaces(by_seq=places, left_out=None),
        state=state,
        tiles={},
        covering=None,
        overdue=None,
    )


@pytest.mark.parametrize(
    ("places", "signed", "ended_at", "found"),
    [
        ({0: 3, 1: 4}, 10, 5, None),
        ({0: 3, 1: 4}, 10, 4, FOUND),
        ({0: 3, 1: 12}, 10, 10, FOUND),  # its place is not under the checkpoint
        ({0: 3}, 10, 10, FOUND),
        ({0: 3}, 10, 11, None),
    ],
)
def test_what_stands_where_its_writer_counts_no_more_is_a_break(
    places: dict[int, int], signed: int, ended_at: int, found: ChainBreak | None
) -> None:
    retired = {WRITER: {LOG.hex(): ended_at}}
    assert retired_break(stored(), placed(places, signed), retired, 0) == found


def test_in_a_log_that_the_retirement_does_not_list_it_never_counted() -> None:
    found = retired_break(stored(), placed({0: 0, 1: 1}, 10), {WRITER: {}}, 0)
    assert found is not None
    assert found.seq == 0


def test_other_writers_and_records_that_were_looked_at_before_are_left_alone() -> None:
    assert retired_break(stored(), placed({}, 10), {b"o" * 16: {}}, 0) is None
    assert retired_break(stored(), placed({}, 10), {WRITER: {}}, 2) is None


def change(role: str, at: int | None) -> KeyChange:
    sizes = {} if at is None else {LOG.hex(): at}
    return KeyChange(role=role, old=OLD.public_key, new=NEW.public_key, sizes=sizes)


@pytest.mark.parametrize(
    ("places", "signed", "ended_at", "found_at"),
    [
        ({0: 3, 1: 4}, 10, 5, None),
        ({0: 3, 1: 4}, 10, 4, 1),
        ({0: 3, 1: 12}, 10, 10, 1),
        ({0: 3}, 10, 11, None),
        ({0: 3, 1: 4}, 10, None, 0),  # a log that the change does not list
    ],
)
def test_what_stands_where_its_writers_certificate_counts_no_more_is_a_break(
    places: dict[int, int], signed: int, ended_at: int | None, found_at: int | None
) -> None:
    changes = [change("enrolment", ended_at)]
    found = outlived_break(stored(), placed(places, signed), changes, ENROLMENT, 0)
    assert found == (None if found_at is None else ChainBreak(seq=found_at, reason=OUTLIVED))


def test_the_new_enrolment_key_counts_everywhere_and_other_roles_say_nothing_of_it() -> None:
    where = placed({0: 3, 1: 4}, 10)
    assert outlived_break(stored(NEW), where, [change("enrolment", 0)], ENROLMENT, 0) is None
    assert outlived_break(stored(), where, [change("erasure", 0)], ENROLMENT, 0) is None
    assert outlived_break(stored(), where, [change("enrolment", 0)], ENROLMENT, 2) is None
