"""Makes of a written policy the bundle that the gate decides by, or says what is amiss with it.

A policy that does not keep its own golden cases is not taken in: nobody would notice otherwise
that a rule allows what it was written to deny.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.bundles.cel_condition import Glass, condition
from app.bundles.golden_features import completed_features
from app.bundles.policy_document import (
    MAX_REFUSED_PARTS,
    BuiltInSettings,
    PolicyDocument,
    digest_of,
    named_document,
    parse_document,
    spelled_document,
)
from app.domain.errors import (
    ConditionError,
    ConditionRefusedError,
    PolicyRefusedError,
    RecordFormError,
    RefusedPart,
)
from app.domain.features import DecisionInput
from app.domain.run import Json
from app.domain.verdict import Decision, Verdict
from app.policy.bundle import GoldenCase, PolicyBundle, RuleParameters, TenantRule

Decide = Callable[[DecisionInput, PolicyBundle], Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPolicy:
    """A policy that was read: how it is written, its one spelling, and what the gate uses."""

    document: PolicyDocument
    canonical: bytes
    bundle: PolicyBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenResult:
    """What a policy answers to one of its golden cases."""

    name: str
    expected: Verdict
    found: Verdict
    rules: tuple[str, ...]
    code: str

    @property
    def is_kept(self) -> bool:
        """Whether the answer is the one that was asked for."""
        return self.expected is self.found


class BundleLoader:
    """Reads policies. `decide` is the gate's own, `thread_time_ns` this thread's CPU time."""

    def __init__(self, decide: Decide, thread_time_ns: Callable[[], int]) -> None:
        self._decide = decide
        self._thread_time_ns = thread_time_ns

    def read(self, data: bytes, *, is_toml: bool, policy_id: str | None = None) -> LoadedPolicy:
        """As `taken`, of a policy in TOML or JSON. PolicyRefusedError."""
        return self.taken(parse_document(data, is_toml=is_toml), policy_id)

    def taken(self, document: PolicyDocument, policy_id: str | None = None) -> LoadedPolicy:
        """A policy that was just written. PolicyRefusedError, with every part that is amiss.

        `policy_id`: what the place says where it comes from; the document may say the same.
        """
        if policy_id is not None and document.id != policy_id:
            if "id" in document.model_fields_set:
                raise PolicyRefusedError(
                    [RefusedPart(pointer="/id", reason="another id than the address has")]
                )
            document = named_document(document, policy_id)
        loaded = self.loaded(document)
        broken = [
            RefusedPart(
                pointer=f"/golden/{place}",
                reason=f"wants {result.expected.value}, is {result.found.value} ({result.code})",
            )
            for place, result in enumerate(self.golden(loaded.bundle))
            if not result.is_kept
        ]
        if broken:
            raise PolicyRefusedError(broken[:MAX_REFUSED_PARTS])
        return loaded

    def stored(self, canonical: bytes, version: int) -> LoadedPolicy:
        """A policy as it was stored. PolicyRefusedError when this software cannot read it."""
        document = parse_document(canonical, is_toml=False)
        return self.loaded(document, version, as_stored=canonical)

    def loaded(
        self, document: PolicyDocument, version: int = 0, as_stored: bytes | None = None
    ) -> LoadedPolicy:
        """The bundle of a document, golden cases unasked. PolicyRefusedError.

        `as_stored` are the bytes that it was read from, and that it goes on being known by.
        """
        glass, refused = Glass(), list[RefusedPart]()
        canonical = spelled_document(document) if as_stored is None else as_stored
        rules = tuple(self._tenant_rules(document, glass, refused))
        golden = tuple(_golden_cases(document, refused))
        if not refused:
            refused.extend(_unanswerable(rules, golden))
        if refused:
            raise PolicyRefusedError(refused[:MAX_REFUSED_PARTS])
        bundle = PolicyBundle(
            policy_id=document.id,
            version=version,
            digest=digest_of(canonical),
            default_mode=document.default_mode,
            rules={name: _parameters(settings) for name, settings in document.rules.items()},
            tenant_rules=rules,
            golden=golden,
            hosts=frozenset(document.hosts),
            limits=document.limits,
        )
        return LoadedPolicy(document=document, canonical=canonical, bundle=bundle)

    def golden(self, bundle: PolicyBundle) -> list[GoldenResult]:
        """What a policy answers to its own golden cases, in order."""
        return [self._asked(case, bundle) for case in bundle.golden]

    def _asked(self, case: GoldenCase, bundle: PolicyBundle) -> GoldenResult:
        said = self._decide(case.question, bundle)
        return GoldenResult(
            name=case.name,
            expected=case.verdict,
            found=said.verdict,
            rules=said.rules,
            code=said.code,
        )

    def _tenant_rules(
        self, document: PolicyDocument, glass: Glass, refused: list[RefusedPart]
    ) -> Iterator[TenantRule]:
        for place, rule in enumerate(document.tenant_rules):
            try:
                when = condition(rule.when, glass=glass, thread_time_ns=self._thread_time_ns)
            except ConditionRefusedError as error:
                refused.append(
                    RefusedPart(pointer=f"/tenant_rules/{place}/when", reason=str(error))
                )
                continue
            yield TenantRule(
                rule_id=rule.id,
                point=rule.point,
                when=when,
                verdict=rule.verdict,
                reason=rule.reason,
                owasp=rule.owasp,
            )


def _golden_cases(document: PolicyDocument, refused: list[RefusedPart]) -> Iterator[GoldenCase]:
    for place, case in enumerate(document.golden):
        features: dict[str, Json] = {}
        features.update(case.features)
        try:
            question = completed_features(features, document.default_mode)
        except RecordFormError as error:
            pointer = f"/golden/{place}/features"
            refused.append(RefusedPart(pointer=pointer, reason=str(error)))
            continue
        yield GoldenCase(name=case.name, question=question, verdict=case.verdict)


def _unanswerable(
    rules: tuple[TenantRule, ...], golden: tuple[GoldenCase, ...]
) -> Iterator[RefusedPart]:
    """Conditions that answer a golden case of their point with no yes or no."""
    for place, rule in enumerate(rules):
        for case in golden:
            if case.question.point is not rule.point:
                continue
            try:
                rule.when.holds(case.question.to_json())
            except ConditionError as error:
                where, why = f"/tenant_rules/{place}/when", f"{case.name}: {error.code}"
                yield RefusedPart(pointer=where, reason=why)
                break


def _parameters(settings: BuiltInSettings) -> RuleParameters:
    grounds = settings.grounds
    return RuleParameters(
        verdict=settings.verdict,
        grounds=None if grounds is None else frozenset(grounds),
        limit=settings.limit,
        undeclared=settings.undeclared,
        allows_seen_urls=settings.allows_seen_urls,
    )
