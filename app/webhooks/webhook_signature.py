"""Signs deliveries as Standard Webhooks 1.0 says: HMAC-SHA256 of id, time and body, scheme `v1`.

A receiver that checks the signature and the time knows that the bytes are ours and not a replay.
Source: the specification of Standard Webhooks, "Signature scheme". Pure.

Threat: Unauthorised API access
"""

import hmac
from base64 import b64encode
from collections.abc import Sequence

SECRET_BYTES = 32
SECRET_PREFIX = "whsec_"  # noqa: S105 - what marks a secret is none


def shown_secret(key: bytes) -> str:
    """A secret as its receiver is told it, once."""
    return SECRET_PREFIX + b64encode(key).decode("ascii")


def signature_headers(
    keys: Sequence[bytes], *, message_id: str, at_seconds: int, body: bytes
) -> tuple[tuple[str, str], ...]:
    """The three headers; a signature for each key, so that either of two secrets verifies."""
    signed = f"{message_id}.{at_seconds}.".encode() + body
    made = (b64encode(hmac.digest(key, signed, "sha256")).decode("ascii") for key in keys)
    return (
        ("webhook-id", message_id),
        ("webhook-timestamp", str(at_seconds)),
        ("webhook-signature", " ".join(f"v1,{text}" for text in made)),
    )
