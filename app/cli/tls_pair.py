"""Loads the TLS pair once, before anything starts, and refuses what cannot serve with a sentence.

What was checked is what serves: the context that is made here goes to the web server.

Threat: Unauthorised API access
Threat: Plain HTTP exposure
"""

import ssl
from pathlib import Path

from app.domain.errors import ConfigurationError


class _EncryptedKeyError(Exception):
    """The key asked for a password."""


def _no_password() -> str:
    # OpenSSL would otherwise ask on the terminal, and a server has none.
    raise _EncryptedKeyError


def load_tls_pair(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """A server context of TLS 1.2 and up; None without a pair. ConfigurationError otherwise."""
    if certificate is None and key is None:
        return None
    if certificate is None:
        raise ConfigurationError("--tls-key was given without --tls-cert: TLS needs both")
    if key is None:
        raise ConfigurationError("--tls-cert was given without --tls-key: TLS needs both")
    _require_readable(certificate, "certificate")
    _require_readable(key, "key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _EncryptedKeyError:
        raise ConfigurationError(
            "the TLS key is encrypted: give a key without a passphrase, in a file of mode 0600"
        ) from None
    except ssl.SSLError as error:
        raise ConfigurationError(_reason(error)) from None
    except (OSError, ValueError):
        raise ConfigurationError("the TLS pair cannot be read") from None
    return context


def _require_readable(path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigurationError(f"the TLS {what} cannot be read: {told}") from None


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the TLS key does not belong to the TLS certificate"
    if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "EE_MD_TOO_WEAK"}:
        return "the TLS certificate is too weak to be served"
    return "the TLS certificate or the TLS key is not usable PEM"
