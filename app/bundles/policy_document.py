"""What a policy is written as: TOML or JSON, closed, bounded, with one spelling that has a digest.

Source: policy section 5.6.

Threat: Privilege escalation via tool calls
"""

import hashlib
import json
import tomllib
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from app.bundles.policy_example import POLICY_EXAMPLE
from app.domain.errors import PolicyRefusedError, RefusedPart
from app.domain.features import Source
from app.domain.mode import Mode
from app.domain.verdict import Point, Verdict

MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_REFUSED_PARTS: Final = 32
BUILT_IN_RULES: Final = (
    *("r1.schema", "r2.capability", "r3.recipient", "r4.object", "r5.choice", "r6.amount"),
    *("r7.links", "r8.secrets", "r9.egress", "r10.command", "r11.budget", "r12.rule_of_two"),
    *("r13.after_quarantine", "r14.strict"),
)
# Without these there is nothing that could be done, or nobody who may: they only deny.
UNBENDING: Final = frozenset({"r1.schema", "r2.capability", "r11.budget"})
JOINT_ID: Final = "joint"  # of two policies that stand side by side: nobody uploads one
# What a policy can limit: effects of a run, and from which score on a result is suspected.
LIMITS: Final = ("effects", "quarantine_per_mille")
_MAX_COUNT = 2**53 - 1


def _in_order(items: list[str]) -> list[str]:
    """A set has one order, so that two spellings of one policy have one digest."""
    return sorted(set(items))


def _known(name: str) -> str:
    if name not in BUILT_IN_RULES:
        raise ValueError("no such built-in rule")
    return name


def _limited(name: str) -> str:
    if name not in LIMITS:
        raise ValueError("no such limit")
    return name


PolicyId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,64}$")]
Name = PolicyId
Reason = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,40}:[a-z0-9_.-]{1,40}$")]
Host = Annotated[
    str, StringConstraints(pattern=r"^(\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,8}$")
]
Owasp = Annotated[str, StringConstraints(pattern=r"^(LLM|ASI)(0[1-9]|10)$")]
Condition = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Limit = Annotated[str, AfterValidator(_limited)]
BuiltIn = Annotated[str, AfterValidator(_known)]
Objecting = Literal[Verdict.REDACT, Verdict.REQUIRE_APPROVAL, Verdict.DENY]


class Closed(BaseModel):
    """A part of a policy. What it does not know is refused, and what is refused is not repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BuiltInSettings(Closed):
    """What is set of one built-in rule; what is left out stays as it is built in."""

    verdict: Objecting | None = None
    grounds: Annotated[list[Source], Field(max_length=16), AfterValidator(_in_order)] | None = None
    limit: Count | None = None
    undeclared: Verdict | None = None
    allows_seen_urls: bool = False


class TenantRuleText(Closed):
    """A rule of the tenant's own. It can only object: what no rule objects to is allowed."""

    id: Name
    point: Point
    when: Condition
    verdict: Objecting
    reason: Reason
    owasp: Owasp | None = None

    @model_validator(mode="after")
    def _its_own(self) -> "TenantRuleText":
        if self.id in BUILT_IN_RULES:
            raise ValueError("the id of a built-in rule")
        if self.reason.startswith("gate_error:"):
            raise ValueError("gate_error is the gate's own")
        return self


class GoldenText(Closed):
    """A question and the answer that this policy has to give to it.

    `features` is a feature record; what is left out of it is as in a record without anything.
    """

    name: Name
    features: dict[str, JsonValue]
    verdict: Verdict


class PolicyDocument(Closed):
    """A policy as somebody writes it. `id` may be left out where the place says it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"example": POLICY_EXAMPLE},
    )

    id: PolicyId = "default"
    description: Annotated[str, StringConstraints(max_length=1024)] = ""
    default_mode: Mode = Mode.STANDARD
    hosts: Annotated[list[Host], Field(max_length=256), AfterValidator(_in_order)] = []
    limits: Annotated[dict[Limit, Count], Field(max_length=len(LIMITS))] = {}
    rules: Annotated[dict[BuiltIn, BuiltInSettings], Field(max_length=len(BUILT_IN_RULES))] = {}
    tenant_rules: Annotated[list[TenantRuleText], Field(max_length=256)] = []
    golden: Annotated[list[GoldenText], Field(max_length=256)] = []

    @model_validator(mode="after")
    def _its_own_name(self) -> "PolicyDocument":
        if self.id == JOINT_ID:
            raise ValueError("an id of the gate's own")
        return self

    @model_validator(mode="after")
    def _nothing_unbent(self) -> "PolicyDocument":
        for name, settings in self.rules.items():
            if name in UNBENDING and settings.verdict not in (None, Verdict.DENY):
                raise ValueError(f"{name} only denies")
        return self

    @model_validator(mode="after")
    def _no_name_twice(self) -> "PolicyDocument":
        for named in ([rule.id for rule in self.tenant_rules], [case.name for case in self.golden]):
            if len(named) != len(set(named)):
                raise ValueError("a name that stands twice")
        return self


def parse_document(data: bytes, *, is_toml: bool) -> PolicyDocument:
    """The policy that is written here. PolicyRefusedError tells every part that is amiss."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise PolicyRefusedError([RefusedPart(pointer="", reason="longer than 256 KiB")])
    try:
        value: object = _from_toml(data) if is_toml else _from_json(data)
    except (ValueError, RecursionError):  # UnicodeDecodeError and both parsers' errors among them
        language = "TOML" if is_toml else "JSON"
        part = RefusedPart(pointer="", reason=f"this is not {language} as a policy is written in")
        raise PolicyRefusedError([part]) from None
    try:
        return PolicyDocument.model_validate(value)
    except ValidationError as error:
        raise PolicyRefusedError(_parts(error)) from None


def named_document(document: PolicyDocument, policy_id: str) -> PolicyDocument:
    """The same policy under another id. PolicyRefusedError for what can be none."""
    try:
        return PolicyDocument.model_validate({**document.model_dump(), "id": policy_id})
    except ValidationError as error:
        raise PolicyRefusedError(_parts(error)) from None


def spelled_document(document: PolicyDocument) -> bytes:
    """Its one spelling. PolicyRefusedError when a part of it has none, or it is too long."""
    try:
        spelled = canonical_document(document)
    except ValueError:  # half a character, or a number that is none
        part = RefusedPart(pointer="", reason="a text or a number that has no one spelling")
        raise PolicyRefusedError([part]) from None
    if len(spelled) > MAX_DOCUMENT_BYTES:
        raise PolicyRefusedError([RefusedPart(pointer="", reason="longer than 256 KiB")])
    return spelled


def canonical_document(document: PolicyDocument) -> bytes:
    """The one spelling of a policy: what is as by default is left out, keys are in order."""
    plain = document.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(
        {**plain, "id": document.id},
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    ).encode("utf-8")


def digest_of(canonical: bytes) -> str:
    """The digest by which everything names a policy: SHA-256 of its one spelling, in hex."""
    return hashlib.sha256(canonical).hexdigest()


def _from_toml(data: bytes) -> object:
    return tomllib.loads(data.decode("utf-8"))


def _from_json(data: bytes) -> object:
    return json.loads(data.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)


def _refuse(word: str) -> object:
    raise ValueError(word)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that stands twice")
    return found


def _parts(error: ValidationError) -> list[RefusedPart]:
    return [
        RefusedPart(pointer="".join(f"/{step}" for step in item["loc"]), reason=item["msg"])
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ][:MAX_REFUSED_PARTS]
