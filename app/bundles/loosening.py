"""Says in what a policy lets more pass than the one before it: such a change needs two keys.

What cannot be compared counts as looser: nobody is asked too often for having written a rule anew.
Each reason is a code and the name of a rule, a part or a case, never content.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Iterator, Mapping

from app.bundles.policy_document import (
    BuiltInSettings,
    PolicyDocument,
    TenantRuleText,
)
from app.domain.features import Source
from app.domain.mode import may_tighten
from app.domain.verdict import Verdict, is_weaker

_BEST = frozenset({Source.INSTRUCTION, Source.CAPABILITY})  # what every rule takes for proof
_UNLIMITED = frozenset({"effects"})  # by what is built in
_AS_BUILT_IN = BuiltInSettings()


def looser_parts(before: PolicyDocument, after: PolicyDocument) -> list[str]:
    """Every part in which the second may let more pass than the first, as codes, in order."""
    return [
        *_of_the_whole(before, after),
        *_of_built_in(before.rules, after.rules),
        *_of_the_tenants(before.tenant_rules, after.tenant_rules),
    ]


def _of_the_whole(before: PolicyDocument, after: PolicyDocument) -> Iterator[str]:
    if not may_tighten(before.default_mode, after.default_mode):
        yield "mode"
    if not set(after.hosts) <= set(before.hosts):
        yield "hosts"
    for name in sorted({*before.limits, *after.limits}):
        old, new = before.limits.get(name), after.limits.get(name)
        if old is None and name in _UNLIMITED:
            continue
        if new != old and (new is None or old is None or new > old):
            yield f"limit:{name}"


def _of_built_in(
    before: Mapping[str, BuiltInSettings], after: Mapping[str, BuiltInSettings]
) -> Iterator[str]:
    for name in sorted({*before, *after}):
        old, new = before.get(name, _AS_BUILT_IN), after.get(name, _AS_BUILT_IN)
        if any(_is_looser(old, new)):
            yield f"rule:{name}"


def _is_looser(old: BuiltInSettings, new: BuiltInSettings) -> Iterator[bool]:
    yield _may_be_weaker(old.verdict, new.verdict)
    yield _may_be_weaker(old.undeclared, new.undeclared)
    yield new.allows_seen_urls and not old.allows_seen_urls
    if new.limit != old.limit:
        yield new.limit is None or old.limit is None or new.limit > old.limit
    if new.grounds != old.grounds:
        known = _BEST if old.grounds is None else set(old.grounds)
        yield new.grounds is None or not set(new.grounds) <= known


def _may_be_weaker(old: Verdict | None, new: Verdict | None) -> bool:
    """Of what is built in nothing is known here but that it is not sterner than a denial."""
    if old == new:
        return False
    if new is None:
        return True
    return new is not Verdict.DENY if old is None else is_weaker(new, old)


def _of_the_tenants(before: list[TenantRuleText], after: list[TenantRuleText]) -> Iterator[str]:
    kept = {rule.id: rule for rule in after}
    for old in before:
        new = kept.get(old.id)
        is_asked_alike = new is not None and (new.when, new.point) == (old.when, old.point)
        if new is None or not is_asked_alike or is_weaker(new.verdict, old.verdict):
            yield f"rule:{old.id}"
