"""Turns the values of one call into content-free facts: role, ground, label, and what they carry.

Threat: Prompt injection via task input
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.capability import covers_recipient
from app.domain.errors import RecordFormError
from app.domain.features import MAX_ARGUMENT_FEATURES, ArgumentFeature, Source
from app.domain.label import Confidentiality, Integrity, Label, highest
from app.domain.step import Effect, Role, ToolSpec
from app.policy.argument_roles import Leaf
from app.policy.authority import Authority, Said, safe_kind
from app.policy.provenance import PROVEN, Origin, Provenance
from app.policy.value_forms import (
    TELLS_NOTHING,
    addresses_in,
    fold,
    form_of,
    host_of,
    links_in,
    number_of,
    tokens_of,
)

_SHORT_TEXT = 120
_LONG_TEXT_WORDS = 2  # telling words that a long text has to share before it counts as asked for
_VOUCHED = PROVEN | {Source.TRUSTED}
CARRYING = frozenset({Role.CONTENT, Role.QUERY, Role.COMMAND, Role.ATTRIBUTE, Role.OPTION})


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """What the values of a call are weighed against."""

    authority: Authority
    said: Said
    provenance: Provenance
    label: Label
    paid: Decimal
    around: frozenset[str]


def features_of(
    leaves: Sequence[Leaf], spec: ToolSpec, weighing: Weighing
) -> tuple[ArgumentFeature, ...]:
    """One feature for each value, those alike once. RecordFormError when they are too many."""
    told = [
        form_of(Role.RECIPIENT, str(leaf.value)) for leaf in leaves if leaf.role is Role.RECIPIENT
    ]
    found = dict.fromkeys(_feature(leaf, spec, told, weighing) for leaf in leaves)
    if len(found) > MAX_ARGUMENT_FEATURES:
        raise RecordFormError("more kinds of values than can be judged one by one")
    return tuple(found)


def _feature(
    leaf: Leaf, spec: ToolSpec, told: Iterable[str], weighing: Weighing
) -> ArgumentFeature:
    origin = weighing.provenance.origin(leaf)
    links, addresses = _carried(leaf, weighing)
    proven = bool(origin.sources & PROVEN)
    return ArgumentFeature(
        path=leaf.argument,
        role=leaf.role,
        sources=origin.sources,
        integrity=_integrity(origin, weighing.label),
        confidentiality=_confidentiality(leaf, origin, weighing.label),
        object_kind=None if leaf.kind is None else safe_kind(leaf.kind),
        is_low_capacity=leaf.is_low_capacity,
        is_enumerated=leaf.is_enumerated,
        is_new=leaf.is_new,
        is_anchored=proven or _is_anchored(leaf, weighing),
        host=_listed_host(leaf, weighing.authority),
        is_over_cap=_is_over_cap(leaf, spec, weighing),
        is_stated_otherwise=_is_stated_otherwise(leaf, origin, weighing.said),
        carried_links=links,
        carried_addresses=addresses,
        is_within_readers=_is_within(leaf, origin, weighing.label, told),
    )


def _integrity(origin: Origin, context: Label) -> Integrity:
    """Who stands behind the best ground that the value has."""
    sources = origin.sources
    if sources & {Source.INSTRUCTION, Source.CAPABILITY}:
        return Integrity.USER
    if sources & {Source.CREATED, Source.LISTED, Source.TRUSTED}:
        return Integrity.TOOL
    if Source.QUARANTINED in sources:
        return Integrity.QUARANTINED
    if sources == {Source.MODEL}:
        return context.integrity
    return Integrity.UNTRUSTED


def _confidentiality(leaf: Leaf, origin: Origin, context: Label) -> Confidentiality:
    """The narrowest circle that a value may come from; of a text made by the model, all seen."""
    if origin.sources & {Source.INSTRUCTION, Source.CAPABILITY}:
        return Confidentiality.PUBLIC
    own = origin.label.confidentiality
    if leaf.role in CARRYING or Source.MODEL in origin.sources:
        return highest(own, context.confidentiality)
    return own


def _carried(leaf: Leaf, weighing: Weighing) -> tuple[int, int]:
    """How many links and addresses stand in a text that nobody vouches for."""
    if leaf.role not in CARRYING or not isinstance(leaf.value, str):
        return 0, 0
    links = [(Role.URL, link) for link in links_in(leaf.value)]
    addresses = [(Role.RECIPIENT, address) for address in addresses_in(fold(leaf.value))]
    return (
        sum(not is_vouched(weighing.provenance, role, text) for role, text in links),
        sum(not is_vouched(weighing.provenance, role, text) for role, text in addresses),
    )


def is_vouched(provenance: Provenance, role: Role, text: str) -> bool:
    """Whether a link or an address was stated by somebody, or stands in a trusted field."""
    leaf = Leaf(
        argument="",
        name="",
        value=text,
        role=role,
        kind=None,
        is_declared_kind=False,
        is_low_capacity=False,
    )
    return bool(provenance.origin(leaf).sources & _VOUCHED)


def _is_anchored(leaf: Leaf, weighing: Weighing) -> bool:
    """Whether a value shares telling words with the instructions, or with what they point at."""
    telling, around = weighing.said.telling, weighing.around
    words = tokens_of(str(leaf.value)) - TELLS_NOTHING
    if len(str(leaf.value)) <= _SHORT_TEXT:
        return bool(words & telling or words & around)
    return len(words & (telling | around)) >= _LONG_TEXT_WORDS


def _listed_host(leaf: Leaf, authority: Authority) -> str | None:
    """The host by its name, only where the policy or the platform names it."""
    if leaf.role is not Role.URL:
        return None
    host = host_of(form_of(Role.URL, str(leaf.value)))
    return host if host in authority.listed_hosts else None


def _is_over_cap(leaf: Leaf, spec: ToolSpec, weighing: Weighing) -> bool:
    """Whether this amount, with all that was paid before, is more than was declared."""
    cap = weighing.authority.capabilities.max_amount
    if leaf.role is not Role.AMOUNT or cap is None:
        return False
    amount = number_of(leaf.value)
    before = weighing.paid if spec.effect is Effect.PAY else Decimal(0)
    return amount is None or before + abs(amount) > cap


def _is_stated_otherwise(leaf: Leaf, origin: Origin, said: Said) -> bool:
    """Whether the instructions name a sum of money, and this one stands only in untrusted text."""
    if leaf.role is not Role.AMOUNT or not said.money:
        return False
    return Source.SEEN in origin.sources and not origin.sources & _VOUCHED


def _is_within(leaf: Leaf, origin: Origin, context: Label, told: Iterable[str]) -> bool:
    """Whether all who are told are readers of what the model may have put into this value."""
    readers = context.readers
    if readers is None or leaf.role not in CARRYING | {Role.URL}:
        return True
    if origin.sources & {Source.INSTRUCTION, Source.CAPABILITY}:
        return True
    allowed = [form_of(Role.RECIPIENT, reader) for reader in readers]
    named = list(told)
    return bool(named) and all(
        any(covers_recipient(reader, one) for reader in allowed) for one in named
    )
