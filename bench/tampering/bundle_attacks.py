"""Attacks on exported bundles by whoever holds one, and old states shown as if they were new.

Every bundle is a real export of the rotated deployment. The holder changes members and makes the
manifest fit; the reader's policy was pinned before. An answer of 0 is the attacker's success.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random  # noqa: TID251 - seeded positions

from bench.tampering.attack import Outcome, Told, Trial
from bench.tampering.bundle_changes import (
    BATCHES,
    PAYLOADS,
    RECORDS,
    Change,
    anchor_path,
    backwards,
    drop,
    drop_tail,
    edit_and_rehash,
    edit_header,
    edit_time,
    flip,
    no_anchor,
    no_cosignature,
    no_erasure,
    node_for_leaf,
    on,
    other_length,
    own_everything,
    own_key_under_real_id,
    own_log_key,
    own_writer,
    proofs_swapped,
    short_hash,
    wrong_index,
    wrong_size,
)
from bench.tampering.bundles import (
    BROKEN,
    INCOMPLETE,
    WHOLE,
    Members,
    members_of,
    packed,
)
from bench.tampering.rotated import Rotated
from bench.tampering.run_ref import RunRef

_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleClass:
    """A class of the table that is made on bundles."""

    number: int
    title: str
    who: str
    named: str
    acts: tuple[tuple[str, "Deal"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What is shown to the reader: which run, changed how, read with what."""

    change: Change
    told_by: frozenset[int] = frozenset({BROKEN})
    erased: bool = False  # a run of which something was erased lawfully
    trusting: bool = False  # the reader has no policy
    words: Callable[[Members, Random], tuple[str, ...]] = lambda _members, _rng: ()


def _nothing(_members: Members, _rng: Random) -> None:
    """The bundle as it was exported, long ago."""


def _long_after(members: Members, rng: Random) -> tuple[str, ...]:
    """The reader's clock and patience: the witness saw it longer ago than that."""
    most = rng.randrange(60, _DAY)
    later = witnessed_at(members) + most + rng.randrange(1, _DAY)
    return ("--now", str(later), "--max-age-seconds", str(most))


def witnessed_at(members: Members) -> int:
    """When the witness cosigned (C2SP tlog-cosignature)."""
    line = members["operator.note"].splitlines()[-1]
    raw = base64.b64decode(line.rpartition(b" ")[2])
    return int.from_bytes(raw[4:12])


def soon_after(members: Members, rng: Random) -> tuple[str, ...]:
    """A reader who asks in time: nothing to be said."""
    most = rng.randrange(60, _DAY)
    now = witnessed_at(members) + rng.randrange(most)
    return ("--now", str(now), "--max-age-seconds", str(most))


_PARTLY = frozenset({BROKEN, INCOMPLETE})
CLASSES = (
    BundleClass(
        number=34,
        title="leaf/node confusion, wrong size or index, short hashes in proofs",
        who="client",
        named="D12",
        acts=(
            ("node for leaf", Deal(change=on(RECORDS, node_for_leaf))),
            ("index", Deal(change=on(RECORDS, wrong_index))),
            ("size", Deal(change=wrong_size)),
            ("hash of another length", Deal(change=on(RECORDS, short_hash))),
            ("a hash more or less", Deal(change=on(RECORDS, other_length))),
            ("backwards", Deal(change=on(RECORDS, backwards))),
            ("two swapped", Deal(change=on(RECORDS, proofs_swapped))),
            ("anchor's path", Deal(change=anchor_path)),
        ),
    ),
    BundleClass(
        number=42,
        title="drop or edit rows of an export; a bundle with keys of its own",
        who="holder",
        named="D12",
        acts=(
            ("record dropped", Deal(change=on(RECORDS, drop))),
            ("end dropped", Deal(change=drop_tail, told_by=_PARTLY)),
            ("payload dropped", Deal(change=on(PAYLOADS, drop))),
            ("batch dropped", Deal(change=on(BATCHES, drop))),
            ("header", Deal(change=on(RECORDS, edit_header))),
            ("header, re-hashed", Deal(change=on(RECORDS, edit_and_rehash))),
            ("time", Deal(change=on(RECORDS, edit_time))),
            (
                "value",
                Deal(change=on(PAYLOADS, flip("value"))),
            ),
            (
                "salt",
                Deal(change=on(PAYLOADS, flip("salt"))),
            ),
            (
                "signature",
                Deal(change=on(BATCHES, flip("sig"))),
            ),
            ("own writer", Deal(change=own_writer)),
            ("own log and witness keys", Deal(change=own_log_key)),
            ("own key, real id", Deal(change=own_key_under_real_id)),
            ("all keys its own", Deal(change=own_everything)),
            (
                "all keys its own, no policy",
                Deal(change=own_everything, trusting=True, told_by=_PARTLY),
            ),
            ("anchor dropped", Deal(change=no_anchor, told_by=_PARTLY)),
            ("cosignature dropped", Deal(change=no_cosignature, told_by=_PARTLY)),
            ("erasure record dropped", Deal(change=no_erasure, erased=True)),
        ),
    ),
    BundleClass(
        number=28,
        title="freeze: serve an old checkpoint",
        who="A4",
        named="D10",
        acts=(("old bundle", Deal(change=_nothing, words=_long_after, told_by=_PARTLY)),),
    ),
)


async def bundle_trial(rotated: Rotated, one: BundleClass, name: str, deal: Deal) -> Trial:
    """Change one export and have it read."""
    rng = rotated.stage.rng
    run = _run_for(rotated, deal)
    members = members_of(rotated.bundles[run])
    deal.change(members, rng)
    found = await rotated.verify(
        packed(members),
        *deal.words(members, rng),
        trusting=deal.trusting,
    )
    told = tuple(Told(detector=one.named, reason=reason) for reason in found.findings[:1])
    is_told = found.code in deal.told_by
    outcome = Outcome.DETECTED if is_told else Outcome.UNDETECTED
    if not is_told and found.code != WHOLE:
        outcome = Outcome.ELSEWHERE
    layers = frozenset(_layer(reason) for reason in found.findings)
    return Trial(
        number=one.number, act=name, outcome=outcome, told=told, where=run.public, layers=layers
    )


def _run_for(rotated: Rotated, deal: Deal) -> RunRef:
    wanted = "anonymized" if deal.erased else ""
    return rotated.stage.rng.choice([run for run in rotated.bundles if run.erased == wanted])


# Which layer a finding of the offline verifier is of, most special first.
_LAYERS = (
    (r"no erasure statement|erasure|was erased", "D8"),
    (r"witness|cosignature|quorum", "D6"),
    (r"enrolment|vouched for", "D7"),
    (r"is signed by no log key|has a signature by|no policy is given|is pinned", "D5"),
    (r"tree of the checkpoint|stands in the log|names another checkpoint|no hash|leads to", "D4"),
    (r"in a log of which no checkpoint", "D4"),
    (r"enrolment|batch|writer", "D7"),
    (r"commits to|belongs to (no record|a record)|field .* (twice|unknown)", "D3"),
    (r"and header do not agree", "D2"),
    (r"hash of the header|does not follow|chain|missing|order|end here|header", "D1"),
)


def _layer(reason: str) -> str:
    for pattern, layer in _LAYERS:
        if re.search(pattern, reason):
            return layer
    return "D12"
