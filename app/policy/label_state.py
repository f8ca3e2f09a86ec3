"""What a run knows of its values: a pure fold over authority, calls and results.

Deterministic, so that whoever takes a run over rebuilds it from the transcript. It only ever adds
what was read; trust is never gained by reading back what the run wrote.

Source: policy sections 5.2 and 5.3.

Threat: Prompt injection via task input
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from app.domain.errors import RecordFormError
from app.domain.features import ArgumentFeature, AskedFor, ContextFeature, Source, ToolFeature
from app.domain.label import Confidentiality, Integrity, Label, is_trusted
from app.domain.run import Json, JsonObject
from app.domain.step import EFFECTFUL, Effect, Role, ToolCall, ToolSpec
from app.policy.argument_features import CARRYING, Weighing, features_of, is_vouched
from app.policy.argument_roles import Leaf, kind_made_by, leaves_of, safe_name
from app.policy.asked_for import asked_tools
from app.policy.authority import Authority, PlannedCall, Said
from app.policy.provenance import PROVEN, Origin, Provenance, Reading, reading_of
from app.policy.reference import Identity, Observation, resolve
from app.policy.result_fields import Field, is_id_name, records_of, value_of
from app.policy.value_forms import fold, form_of, links_in, number_of

_IDENTIFYING = frozenset({Role.RECIPIENT, Role.OBJECT, Role.CHOICE, Role.PATH, Role.ATTRIBUTE})
_FREE = frozenset({Role.TIME, Role.OPTION, Role.AMOUNT})
_PLAIN_CHARACTERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentSource:
    """What a person who is to approve is shown of one value. Holds content: never stored."""

    argument: str
    value: str
    role: Role
    sources: frozenset[Source]
    quote: str | None  # the text around it, where nobody answers for it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    """What the fold carries. Never changed in place."""

    readings: tuple[Reading, ...] = ()
    written: tuple[str, ...] = ()
    created: frozenset[Identity] = frozenset()
    label: Label = field(
        default_factory=lambda: Label(
            integrity=Integrity.USER, confidentiality=Confidentiality.PUBLIC
        )
    )
    calls: Mapping[str, int] = field(default_factory=dict)
    effects: int = 0
    paid: Decimal = Decimal(0)
    asks_refused: int = 0
    plan_used: frozenset[int] = frozenset()


class LabelState:
    """The labels of one run at one moment. Every change gives a new state."""

    __slots__ = ("_asked", "_authority", "_memory", "_provenance", "_said")

    def __init__(
        self,
        authority: Authority,
        said: Said,
        asked: frozenset[str],
        memory: _Memory,
    ) -> None:
        self._authority = authority
        self._said = said
        self._asked = asked
        self._memory = memory
        self._provenance: Provenance | None = None

    @classmethod
    def start(cls, authority: Authority) -> "LabelState":
        """Before anything was called: the instructions, the data parts, the capabilities."""
        said = Said(authority.instructions, authority.catalogue, authority.today)
        label = _Memory().label
        for part in authority.data:
            label = label.join(part.label)
        return cls(authority, said, asked_tools(said, authority.catalogue), _Memory(label=label))

    @property
    def authority(self) -> Authority:
        """What this state was started with."""
        return self._authority

    @property
    def label(self) -> Label:
        """The label of all that the model has seen: it only ever falls."""
        return self._memory.label

    @property
    def context(self) -> ContextFeature:
        """The same for a feature record."""
        label = self._memory.label
        return ContextFeature(
            integrity=label.integrity,
            confidentiality=label.confidentiality,
            has_readers=label.readers is not None,
            may_instruct=self._authority.instructions is not None,
            is_labelled=is_labelled(self._authority.catalogue),
        )

    @property
    def effects(self) -> int:
        """How many calls with an effect were made."""
        return self._memory.effects

    @property
    def asks_refused(self) -> int:
        """How many times a person said no."""
        return self._memory.asks_refused

    @property
    def derived_tools(self) -> tuple[str, ...]:
        """The tools that the run may use: those declared, or those without effect and asked for."""
        return tuple(
            spec.name
            for spec in self._authority.catalogue
            if self._is_granted(spec) and self._asked_for(spec) is not AskedFor.NO
        )

    def tool(
        self, call: ToolCall, spec: ToolSpec | None, *, calls_made: int | None = None
    ) -> ToolFeature:
        """What is known of the tool of a call; `calls_made` where somebody else counts."""
        if spec is None:
            return ToolFeature(
                name=safe_name(call.name),
                effect=Effect.EXECUTE,
                is_known=False,
                asked_for=AskedFor.NO,
                is_granted=False,
                is_declared=False,
                is_confined=False,
            )
        capabilities = self._authority.capabilities
        plan = self._authority.plan
        return ToolFeature(
            name=safe_name(spec.name),
            effect=spec.effect,
            is_known=True,
            asked_for=self._asked_for(spec),
            is_granted=self._is_granted(spec),
            is_declared=self._authority.is_declared,
            is_confined=spec.is_confined,
            calls_made=max(calls_made or 0, self._memory.calls.get(spec.name, 0)),
            max_calls=min(spec.max_calls, capabilities.max_calls.get(spec.name, spec.max_calls)),
            fits_plan=None if plan is None else self._planned(call) is not None,
        )

    def arguments(self, call: ToolCall, spec: ToolSpec) -> tuple[ArgumentFeature, ...]:
        """What is known of the arguments of a call. RecordFormError beyond the bounds."""
        leaves = leaves_of(call.arguments, spec)
        if leaves is None:
            raise RecordFormError("more values than can be judged one by one")
        weighing = Weighing(
            authority=self._authority,
            said=self._said,
            provenance=self._look(),
            label=self._memory.label,
            paid=self._memory.paid,
            around=self._look().around,
        )
        return features_of(leaves, spec, weighing)

    def argument_sources(self, call: ToolCall, spec: ToolSpec) -> tuple[ArgumentSource, ...]:
        """Each value of a call in clear, with where it was found: for the card of an approval."""
        look = self._look()
        return tuple(
            ArgumentSource(
                argument=leaf.argument,
                value=str(leaf.value),
                role=leaf.role,
                sources=look.origin(leaf).sources,
                quote=look.quote(leaf),
            )
            for leaf in leaves_of(call.arguments, spec) or ()
        )

    def loose_links(self, arguments: JsonObject, spec: ToolSpec) -> frozenset[str]:
        """The links in texts of these arguments that nobody vouches for, each in its one form."""
        look = self._look()
        return frozenset(
            link
            for leaf in leaves_of(arguments, spec) or ()
            if leaf.role in CARRYING
            for link in links_in(str(leaf.value))
            if not is_vouched(look, Role.URL, link)
        )

    def observed(
        self,
        call: ToolCall,
        spec: ToolSpec,
        result: Json,
        *,
        is_error: bool = False,
        labels: Mapping[str, Label] | None = None,
        is_quarantined: bool = False,
    ) -> "LabelState":
        """The state after this call was made and its result was seen."""
        memory, look = self._memory, self._look()
        leaves = leaves_of(call.arguments, spec) or ()
        origins = [(leaf, look.origin(leaf)) for leaf in leaves]
        is_effect = spec.effect in EFFECTFUL
        said_new = _new_texts(origins, is_effect=is_effect)
        value = value_of(result) if isinstance(result, str) else result
        seen = Observation(
            number=len(memory.readings),
            tool=spec.name,
            effect=spec.effect,
            records=() if is_error else records_of(value, spec, labels),
            by_ids=_ids_in(origins),
            by_name=_is_by_name(origins),
            written=(*memory.written, *said_new),
        )
        if is_error:
            seen = replace(seen, records=records_of(str(value), replace(spec, labels={}), None))
        reading = replace(reading_of(seen), is_quarantined=is_quarantined)
        made = frozenset[Identity]() if is_error else _made(spec, seen, origins)
        used = self._planned(call)
        after = replace(
            memory,
            readings=(*memory.readings, reading),
            written=(*memory.written, *(said_new if is_effect else ())),
            created=memory.created | made,
            label=_after(memory.label, seen, leaves, is_quarantined=is_quarantined),
            calls={**memory.calls, spec.name: memory.calls.get(spec.name, 0) + 1},
            effects=memory.effects + is_effect,
            paid=memory.paid + _paid(spec, leaves),
            plan_used=memory.plan_used | ({used} if used is not None else set()),
        )
        return LabelState(self._authority, self._said, self._asked, after)

    def refused(self) -> "LabelState":
        """The state after a person refused what the run asked for."""
        after = replace(self._memory, asks_refused=self._memory.asks_refused + 1)
        return LabelState(self._authority, self._said, self._asked, after)

    def lowered(self, label: Label) -> "LabelState":
        """The state after the model saw something else with this label: a hand-off, a memory."""
        after = replace(self._memory, label=self._memory.label.join(label))
        return LabelState(self._authority, self._said, self._asked, after)

    def _look(self) -> Provenance:
        if self._provenance is None:
            memory = self._memory
            seen = [reading.seen for reading in memory.readings if not reading.is_quarantined]
            matches = resolve(self._said, seen, memory.created)
            self._provenance = Provenance(
                self._authority, self._said, memory.readings, matches, memory.created
            )
        return self._provenance

    def _asked_for(self, spec: ToolSpec) -> AskedFor:
        if self._authority.is_declared:
            return AskedFor.DECLARED
        if spec.effect not in EFFECTFUL or spec.name in self._asked:
            return AskedFor.MENTIONED
        return AskedFor.NO

    def _is_granted(self, spec: ToolSpec) -> bool:
        """Whether the tool may be called at all; what only reads need not be declared."""
        authority = self._authority
        if authority.granted is not None and spec.name not in authority.granted:
            return False
        declared = authority.capabilities.tools
        return declared is None or spec.name in declared or spec.effect not in EFFECTFUL

    def _planned(self, call: ToolCall) -> int | None:
        """Which step of the plan this call would be; None when it is none that is left."""
        for at, step in enumerate(self._authority.plan or ()):
            if at not in self._memory.plan_used and _is_step(step, call):
                return at
        return None


def is_labelled(catalogue: tuple[ToolSpec, ...]) -> bool:
    """Whether a catalogue says anything of the parts of its results or the roles of arguments."""
    return any(spec.labels or spec.results or spec.roles for spec in catalogue)


def _is_step(step: PlannedCall, call: ToolCall) -> bool:
    if step.tool != call.name:
        return False
    return all(
        name in call.arguments and call.arguments[name] == value
        for name, value in (step.arguments or {}).items()
    )


def _new_texts(origins: list[tuple[Leaf, Origin]], *, is_effect: bool) -> tuple[str, ...]:
    """What a call puts into the world, or may have echoed, that nobody with authority stated."""
    return tuple(
        fold(leaf.value)
        for leaf, origin in origins
        if isinstance(leaf.value, str)
        and leaf.value
        and leaf.role not in (_FREE if is_effect else _FREE | {Role.OBJECT, Role.PATH})
        and not origin.sources & PROVEN
    )


def _ids_in(origins: list[tuple[Leaf, Origin]]) -> frozenset[Identity]:
    return frozenset(
        (leaf.kind or "", form_of(leaf.role, str(leaf.value)))
        for leaf, _ in origins
        if leaf.role is Role.OBJECT
    )


def _is_by_name(origins: list[tuple[Leaf, Origin]]) -> bool:
    """Whether a call named something, and all that it named stands in the instructions by name."""
    named = [(leaf, it) for leaf, it in origins if leaf.role in _IDENTIFYING]
    return bool(named) and all(
        it.sources & {Source.INSTRUCTION, Source.CAPABILITY} and number_of(leaf.value) is None
        for leaf, it in named
    )


def _made(
    spec: ToolSpec, seen: Observation, origins: list[tuple[Leaf, Origin]]
) -> frozenset[Identity]:
    """The objects that this call made: ids that its result tells, and names that it was given."""
    kind = kind_made_by(spec)
    if kind is None:
        return frozenset()
    passed = {fold(str(leaf.value)) for leaf, _ in origins}
    told = {
        (kind, fold(str(field.value)))
        for record in seen.records
        for field in record.fields
        if _is_made(field, kind, passed)
    }
    given = {
        (kind, form_of(leaf.role, str(leaf.value)))
        for leaf, _ in origins
        if leaf.role in (Role.OBJECT, Role.PATH) and leaf.is_new
    }
    return frozenset(told | given)


def _is_made(field: Field, kind: str, passed: set[str]) -> bool:
    """Whether a field is the id of the new thing: labelled so, or called so and not an echo."""
    if field.kind is not None:
        return field.kind == kind
    return is_id_name(field.name) and (field.is_trusted or fold(str(field.value)) not in passed)


def _after(
    label: Label, seen: Observation, leaves: tuple[Leaf, ...], *, is_quarantined: bool
) -> Label:
    """The context after a result: the join with all of it that can carry words."""
    if is_quarantined:
        label = label.join(Label(integrity=Integrity.QUARANTINED))
    given = {fold(str(leaf.value)) for leaf in leaves}
    echoes = seen.effect in EFFECTFUL - {Effect.NETWORK, Effect.EXECUTE}
    for record in seen.records:
        for it in record.fields:
            harmless = _is_wordless(it, given, is_echo=echoes)
            integrity = label.integrity if harmless else it.label.integrity
            label = label.join(replace(it.label, integrity=integrity))
    return label


def _is_wordless(field: Field, given: set[str], *, is_echo: bool) -> bool:
    """Whether a field cannot tell the model anything new: a number, or an echo of an own call."""
    if not isinstance(field.value, str) or is_trusted(field.label.integrity):
        return not isinstance(field.value, str)
    text = fold(field.value)
    plain = len(text) <= _PLAIN_CHARACTERS and not any(char.isspace() for char in text)
    return is_echo and (text in given or plain)


def _paid(spec: ToolSpec, leaves: tuple[Leaf, ...]) -> Decimal:
    if spec.effect is not Effect.PAY:
        return Decimal(0)
    amounts = (number_of(leaf.value) for leaf in leaves if leaf.role is Role.AMOUNT)
    return sum((abs(amount) for amount in amounts if amount is not None), Decimal(0))
