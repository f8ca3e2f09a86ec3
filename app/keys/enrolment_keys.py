"""The public halves of a deployment's enrolment keys, as all checkers of one process share them.

Threat: Ledger tampering
"""

from collections.abc import Collection, Iterator

from app.keys.signing_keys import ENROLMENT, SigningKeys


class EnrolmentKeys(Collection[bytes]):
    """Those that the key directory held at the last look. Each may have an end in the logs."""

    __slots__ = ("_keys", "_seen", "_signing")

    def __init__(self, signing: SigningKeys) -> None:
        self._signing = signing
        self._seen: tuple[str, ...] = ()
        self._keys: tuple[bytes, ...] = ()
        signing.current(ENROLMENT)
        self.look_again()

    def look_again(self) -> None:
        """Take over keys that were made meanwhile. KeyStoreError."""
        names = self._signing.names(ENROLMENT)
        if names != self._seen:
            self._keys = tuple(key.public_key for key in self._signing.every(ENROLMENT))
            self._seen = names

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
