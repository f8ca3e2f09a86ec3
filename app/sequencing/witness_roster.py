"""The deployment's own witnesses: read from a policy file, with a session for each.

Threat: Ledger tampering
"""

from dataclasses import dataclass
from pathlib import Path

import httpx2

from app.domain.errors import ConfigurationError
from app.sequencing.anchoring import WitnessAnchor
from app.sequencing.witness_client import WitnessClient
from app.transparency.witness_policy import WitnessPolicy, WitnessPolicyError, parse_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRoster:
    """The witnesses that are asked, and which of them are enough."""

    policy: WitnessPolicy
    anchors: tuple[WitnessAnchor, ...]
    http: httpx2.AsyncClient

    async def close(self) -> None:
        """End all sessions."""
        await self.http.aclose()


def load_policy(path: Path) -> WitnessPolicy:
    """Which witnesses there are and which are enough. ConfigurationError when it is malformed."""
    try:
        return parse_policy(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the witness file cannot be read: {error.strerror}") from None
    except WitnessPolicyError as error:
        raise ConfigurationError(f"the witness file is malformed: {error}") from None


def load_witnesses(path: Path) -> WitnessRoster:
    """The witnesses of a policy file. ConfigurationError when it is malformed or names no URL."""
    policy = load_policy(path)
    # The environment's proxies are for what models and tools fetch.
    http = httpx2.AsyncClient(trust_env=False)
    anchors = []
    for witness in policy.witnesses:
        if witness.url is None:
            raise ConfigurationError(f"the witness file gives no URL for '{witness.name}'")
        client = WitnessClient(witness.url, witness.key.encode(), http)
        anchors.append(WitnessAnchor(witness.name, client))
    return WitnessRoster(policy=policy, anchors=tuple(anchors), http=http)
