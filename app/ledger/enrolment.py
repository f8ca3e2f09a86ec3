"""Certificates of writers: who may sign batches, said by the deployment's enrolment key.

Source: docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

from collections.abc import Collection
from functools import lru_cache

from app.ledger.hashing import tag
from app.ledger.signatures import signature_holds

_WRITER = tag("writer")
_REMEMBERED = 1024


def writer_statement(writer: bytes, public_key: bytes) -> bytes:
    """What the enrolment key signs of a writer."""
    return _WRITER + writer + public_key


def is_certified(
    enrolment: Collection[bytes], writer: bytes, public_key: bytes, certificate: bytes | None
) -> bool:
    """Whether one of the enrolment keys says that this writer has this public key."""
    return certifier_of(enrolment, writer, public_key, certificate) is not None


def certifier_of(
    enrolment: Collection[bytes], writer: bytes, public_key: bytes, certificate: bytes | None
) -> bytes | None:
    """The enrolment key that says that this writer has this public key, or None."""
    if certificate is None:
        return None
    keys = (key for key in enrolment if _holds(key, writer, public_key, certificate))
    return next(keys, None)


@lru_cache(maxsize=_REMEMBERED)
def _holds(key: bytes, writer: bytes, public_key: bytes, certificate: bytes) -> bool:
    return signature_holds(key, certificate, writer_statement(writer, public_key))
