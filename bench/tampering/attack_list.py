"""Every class of the design's table, in its order; those without an attack yet are open."""

from bench.tampering import (
    chain_attacks,
    content_attacks,
    contention,
    erasure_attacks,
    order_attacks,
    role_attacks,
    witnessed_campaign,
)
from bench.tampering.attack import AttackClass

NOT_OFFERED = {
    43: "RFC 3161 token for another digest or an expired chain",
    44: "object-lock anchor overwritten with a new version",
}
OPEN = {
    7: "re-hash leaves and root as well, without a key",
    8: "rewrite everything with writer and log keys",
    11: "truncate records, leaves and the newest checkpoint",
    13: "delete a run; the same re-indexed and re-signed",
    19: "delete a payload without an erasure record",
    20: "blank a header, claim a lawful deletion",
    21: "an erasure record with a wrong key",
    22: "erase one field more than authorised",
    23: "bring erased content back",
    24: "delete the erasure record",
    25: "tamper, then erase the evidence",
    26: "restore an old snapshot and go on",
    27: "split view: two trees for two readers",
    28: "freeze: serve an old checkpoint",
    29: "checkpoint by an unknown key of the same name, or with a colliding key id",
    30: "the sequencer skips a row, or takes one twice",
    34: "leaf/node confusion, wrong size or index, short hashes in proofs",
    35: "notes: CR, control characters, blank line, origin injection, extension line",
    36: "a retired or a future key signs",
    37: "delete a rotation record",
    40: "16 processes append to one run, killed at random points",
    41: "drop a leaf's place or a tile; corrupt a partial tile",
    42: "drop or edit rows of an export; a bundle with keys of its own",
    47: "the clock of one pod is set back",
}
COUNT = 48


def classes() -> list[AttackClass]:
    """Those that can be run, by number."""
    rooms = (
        content_attacks,
        chain_attacks,
        order_attacks,
        role_attacks,
        contention,
        erasure_attacks,
    )
    found = [*(one for room in rooms for one in room.CLASSES), *witnessed_campaign.rows()]
    written = {one.number for one in found}
    missing = {number: title for number, title in OPEN.items() if number not in written}
    assert sorted({*written, *missing, *NOT_OFFERED}) == list(range(1, COUNT + 1))
    return sorted(found, key=lambda one: one.number)
