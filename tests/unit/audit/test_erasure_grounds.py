"""A signed erasure statement counts where its key and its checkpoint do, and nowhere else."""

from datetime import UTC, datetime

import pytest

from app.audit.erasure_grounds import Ground, doubt
from app.audit.log_keys import LogKeys
from app.domain.erasure import ErasureAction
from app.keys.signing_keys import SigningKey
from app.ledger.erasure_statement import ErasedItem, ErasureStatement
from app.ledger.key_statements import KeyChange
from app.transparency.checkpoint import Checkpoint, sign_checkpoint

LOG, RUN = b"l" * 16, b"r" * 16
LOG_KEY, OTHER = SigningKey(b"k" * 32), SigningKey(b"x" * 32)
OLD, NEW = b"o" * 32, b"n" * 32
KEYS = LogKeys([LOG_KEY.public_key])
ORIGIN = f"meshflow.test/ledger/{LOG.hex()}"


def note(size: int = 9, *, origin: str = ORIGIN, key: SigningKey = LOG_KEY) -> str:
    return sign_checkpoint(Checkpoint(origin=origin, size=size, root=bytes(32)), key.seed).decode()


def ground(checkpoint: str | None = None, *, signer: bytes = OLD, index: int | None = 9) -> Ground:
    statement = ErasureStatement(
        action=ErasureAction.DELETE_RUN,
        log=LOG,
        run=RUN,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        actor="operator",
        legal_basis="gdpr.art17",
        request_ref=bytes(32),
        items=(ErasedItem(seq=0, rc=bytes(32), chain=bytes(32), fields=()),),
        checkpoint=checkpoint,
    )
    return Ground(seq=1, statement=statement, signer=signer, index=index)


@pytest.mark.parametrize(
    ("signer", "index", "ended_at", "is_good"),
    [
        (OLD, 9, 10, True),
        (OLD, 10, 10, False),
        (OLD, None, 10, False),  # whatever has no place yet was signed after the key gave way
        (OLD, 9, None, False),  # a log that the change does not list
        (NEW, 0, 10, True),
        (NEW, None, 10, True),
    ],
)
def test_a_key_that_gave_way_counts_below_its_end(
    signer: bytes, index: int | None, ended_at: int | None, *, is_good: bool
) -> None:
    sizes = {} if ended_at is None else {LOG.hex(): ended_at}
    changes = [KeyChange(role="erasure", old=OLD, new=NEW, sizes=sizes)]
    found = doubt(ground(signer=signer, index=index), KEYS, changes)
    assert found == (None if is_good else "an erasure key that had given way signed a statement")
    others = [KeyChange(role="log", old=OLD, new=NEW, sizes=sizes)]
    assert doubt(ground(signer=signer, index=index), KEYS, others) is None


def test_a_checkpoint_that_the_log_key_signed_holds_under_each_name_of_its_log() -> None:
    for origin in (ORIGIN, f"{ORIGIN}/r1", f"{ORIGIN}/r20"):
        assert doubt(ground(note(origin=origin)), KEYS, []) is None
    assert doubt(ground(note(9), index=None), KEYS, []) is None


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        (note(key=OTHER), "no key of this deployment signed it"),
        (note(origin=f"meshflow.test/ledger/{RUN.hex()}"), "of another log"),
        (note(origin=f"{ORIGIN}/r0"), "of another log"),
        (note(10), "larger than the log was then"),
        ("no checkpoint at all", "of another log"),
        (note().replace("\n9\n", "\n8\n"), "does not hold"),
    ],
)
def test_another_checkpoint_does_not(checkpoint: str, reason: str) -> None:
    found = doubt(ground(checkpoint), KEYS, [])
    assert found is not None
    assert found.startswith("the checkpoint in a statement does not hold")
    assert reason in found
