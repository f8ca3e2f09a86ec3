"""Self-signed pairs for this machine, made when they are needed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSPHRASE = b"a passphrase nobody types"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Files of one certificate, its key, and its key under a passphrase."""

    certificate: Path
    key: Path
    encrypted_key: Path


def make_pair(directory: Path, name: str) -> Pair:
    """A pair for 127.0.0.1 that is good from yesterday until tomorrow."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(
        certificate=directory / f"{name}.crt",
        key=directory / f"{name}.key",
        encrypted_key=directory / f"{name}.locked",
    )
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pair.key.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    locked = serialization.BestAvailableEncryption(PASSPHRASE)
    pair.encrypted_key.write_bytes(key.private_bytes(pem, form, locked))
    return pair
