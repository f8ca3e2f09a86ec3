"""Which logs a witness watches: their verifier keys, also under the names of their recoveries.

Threat: Ledger tampering
"""

import re
from collections.abc import Mapping, Sequence

from app.domain.errors import ConfigurationError
from app.transparency.note import ED25519, NoteError, VerifierKey, verifier_key

# The k-th recovery of a log goes on under this suffix, signed by the same key (ledger format, 10).
_RECOVERY = re.compile(r"(.+)/r[1-9][0-9]{0,3}", re.DOTALL)


class KnownLogs:
    """Origin -> the keys that may sign for it. Several keys of one name are old and new."""

    def __init__(self, vkeys: Sequence[str]) -> None:
        """ConfigurationError for what is no verifier key of type 0x01."""
        known: dict[str, tuple[VerifierKey, ...]] = {}
        for text in vkeys:
            try:
                key = VerifierKey.parse(text)
            except NoteError:
                raise ConfigurationError("--log is not a verifier key") from None
            if key.algorithm != ED25519:
                raise ConfigurationError("--log is a key of another signature type than 0x01")
            known[key.name] = (*known.get(key.name, ()), key)
        self._known: Mapping[str, tuple[VerifierKey, ...]] = known

    def keys_of(self, origin: str) -> tuple[VerifierKey, ...]:
        """The keys of an origin; none for a log that is not watched."""
        found = self._known.get(origin, ())
        recovery = _RECOVERY.fullmatch(origin)
        if found or recovery is None:
            return found
        return tuple(
            verifier_key(origin, key.algorithm, key.public_key)
            for key in self._known.get(recovery.group(1), ())
        )
