"""The policies that come with the gate: `standard` and `strict`, known by what they stand for.

A digest covers the gate's version, the rules of each point and the word lists: with another word
list it is another policy.

Threat: Prompt injection via task input
"""

import hashlib
import json

from app.domain.mode import Mode
from app.policy.bundle import PolicyBundle
from app.policy.decide import GATE_VERSION
from app.policy.flow_rules import BUILT_IN
from app.policy.gate_words import WORDS_DIGEST

_IDS = {Mode.STANDARD: "builtin", Mode.STRICT: "builtin-strict"}
_VERSION = 2


def built_in_bundle(mode: Mode = Mode.STANDARD, *, checks: str = "") -> PolicyBundle:
    """The built-in policy whose default is this mode; `checks` names what looks at content."""
    content = {
        "checks": checks,
        "default_mode": mode.value,
        "gate": GATE_VERSION,
        "rules": {
            point.value: [getattr(rule, "__name__", "unnamed") for rule in rules]
            for point, rules in BUILT_IN.items()
        },
        "words": WORDS_DIGEST,
    }
    spelled = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return PolicyBundle(
        policy_id=_IDS.get(mode, f"builtin-{mode.value}"),
        version=_VERSION,
        digest=hashlib.sha256(spelled.encode()).hexdigest(),
        default_mode=mode,
    )
