"""What the gate judges: a record of facts about content that holds none of it.

The same record is decided on, stored, simulated, explained and shown to a tenant's conditions.
Names in it are names of tools, arguments, rules and listed hosts; everything else is a class, a
flag or a counter.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.label import Confidentiality, Integrity
from app.domain.mode import Mode
from app.domain.plain_form import plain, revive
from app.domain.run import Json, JsonObject
from app.domain.step import Effect, Role
from app.domain.verdict import Point

MAX_ARGUMENT_FEATURES = 64
MAX_FINDINGS = 32
MAX_HOSTS = 16
MAX_SCORES = 16


class Source(StrEnum):
    """Where a value was found, the best ground first."""

    INSTRUCTION = "instruction"  # who may instruct said it
    CAPABILITY = "capability"  # it was declared
    CREATED = "created"  # the id of what this run made
    LISTED = "listed"  # a trusted field of something the instructions point at
    TRUSTED = "trusted"  # a trusted field of anything else that was read
    SEEN = "seen"  # text that nobody answers for
    WRITTEN = "written"  # this run wrote it, and now reads it back
    QUARANTINED = "quarantined"  # text that is suspected
    MODEL = "model"  # nowhere: the model made it


class AskedFor(StrEnum):
    """Whether somebody with authority asked for what a tool does."""

    DECLARED = "declared"
    MENTIONED = "mentioned"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check of the content itself has against it."""

    rule_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFeature:
    """What is known of the tool of a call. The counts are of this run, before this call."""

    name: str
    effect: Effect
    is_known: bool
    asked_for: AskedFor
    is_granted: bool  # within the effective capabilities
    is_declared: bool  # capabilities were declared at all, by whoever submitted
    is_confined: bool  # it runs in a sandbox of this deployment
    calls_made: int = 0
    max_calls: int = 0  # the least that the tool and the capabilities allow
    fits_plan: bool | None = None  # None: there is no plan


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentFeature:
    """One argument, or those parts of one that are alike in all of this.

    `path` is the argument's name. `sources` are all places where the value was found; `integrity`
    is the best ground it has. `carried_links` and `carried_addresses` count what stands in a longer
    text without ground of its own. `host` is a name only if the bundle or the platform lists it.
    """

    path: str
    role: Role
    sources: frozenset[Source]
    integrity: Integrity
    confidentiality: Confidentiality
    object_kind: str | None = None
    is_low_capacity: bool = False
    is_enumerated: bool = False  # a flag, or one of a list that the catalogue gives
    is_new: bool = False  # the name of a thing that this call makes
    is_anchored: bool = False  # shares a telling word with the instructions
    host: str | None = None
    is_over_cap: bool = False
    is_stated_otherwise: bool = False  # the instructions name an amount, and not this one
    carried_links: int = 0
    carried_addresses: int = 0
    is_within_readers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextFeature:
    """The label of all that the model has seen, and what holds for the run as a whole."""

    integrity: Integrity = Integrity.USER
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    has_readers: bool = False
    may_instruct: bool = False
    is_labelled: bool = False  # the catalogue labels its tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the run has used, and what it may; money in integer micro-dollars."""

    steps: int = 0
    max_steps: int = 0
    tokens: int = 0
    max_tokens: int = 0
    cost_micros: int = 0
    max_cost_micros: int = 0
    elapsed_seconds: int = 0
    max_wall_seconds: int = 0
    reserve_tokens: int = 0
    reserve_micros: int = 0
    effects: int = 0
    asks_refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFeature:
    """What stands in a text that would leave, be handed on or be shown to the model."""

    undeclared_links: int = 0
    invisible_characters: int = 0
    has_canary: bool = False
    has_secret: bool = False
    is_oversized: bool = False
    fits_schema: bool = True
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartiesFeature:
    """Who deals with whom: approvals, hand-offs and deliveries."""

    are_named: bool = True
    is_own_request: bool = False
    is_current: bool = True  # not expired, not decided, not changed
    is_declared_destination: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a detector says, in thousandths. It annotates; it never allows."""

    detector: str
    version: str
    per_mille: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionInput:
    """One question to the gate at any of its nine points."""

    point: Point
    mode: Mode
    tool: ToolFeature | None = None
    arguments: tuple[ArgumentFeature, ...] = ()
    findings: tuple[Finding, ...] = ()
    context: ContextFeature = field(default_factory=ContextFeature)
    counters: Counters = field(default_factory=Counters)
    output: OutputFeature | None = None
    parties: PartiesFeature | None = None
    scores: tuple[Score, ...] = ()
    hosts: tuple[str, ...] = ()  # listed ones only

    def to_json(self) -> JsonObject:
        """The record as JSON, every part present."""
        form = plain(self)
        return form if isinstance(form, dict) else {}

    @classmethod
    def from_json(cls, value: Json) -> "DecisionInput":
        """The record whose JSON this is. RecordFormError when it is none.

        As it is stored it has one member more, `weighed`: what was made of it, and no part of it.
        """
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if name != "weighed"}
        return revive(cls, value)
