"""Ed25519 signatures over ledger messages, checked without an exception to forget.

Source: RFC 8032.

Threat: Ledger tampering
"""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def signature_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key signed the message. False for a key that is none. Never raises."""
    try:
        _key(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=256)
def _key(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)
