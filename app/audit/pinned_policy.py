"""Writes the policy that a verifier of this deployment pins: its keys, its witnesses, its quorum.

Source: docs/ledger-format.md section 11 (C2SP tlog-policy).

Threat: Ledger tampering
"""

from collections.abc import Sequence

from app.transparency.witness_policy import NO_QUORUM, WitnessPolicy

_PREFACE = (
    "# Whom to believe about this deployment's ledger, for `meshflow verify-bundle --policy`.",
    "# A policy from the very server that it is meant to check proves nothing: get these keys",
    "# out of band, or compare each of them with what the operator says, and keep this file.",
)


def policy_text(keys: Sequence[str], witnesses: WitnessPolicy | None) -> str:
    """The file. `keys` are the lines that name the deployment's own keys."""
    lines = [*_PREFACE, *keys]
    if witnesses is None:
        return "\n".join([*lines, f"quorum {NO_QUORUM}", ""])
    lines += [f"witness {item.name} {item.key.encode()}" for item in witnesses.witnesses]
    lines += [
        f"group {item.name} {item.threshold} {' '.join(item.members)}" for item in witnesses.groups
    ]
    return "\n".join([*lines, f"quorum {witnesses.quorum}", ""])
