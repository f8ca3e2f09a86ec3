"""Every class of the design's table, in its order."""

from bench.tampering import (
    chain_attacks,
    content_attacks,
    contention,
    erasure_attacks,
    log_attacks,
    order_attacks,
    role_attacks,
    witnessed_campaign,
)
from bench.tampering.attack import AttackClass

NOT_OFFERED = {
    43: "RFC 3161 token for another digest or an expired chain",
    44: "object-lock anchor overwritten with a new version",
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
        log_attacks,
    )
    found = [*(one for room in rooms for one in room.CLASSES), *witnessed_campaign.rows()]
    written = {one.number for one in found}
    assert sorted({*written, *NOT_OFFERED}) == list(range(1, COUNT + 1))
    return sorted(found, key=lambda one: one.number)
