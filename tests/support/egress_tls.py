"""TLS for the field: an authority of its own, and a certificate for names below allowed.example."""

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NAMES = ("allowed.example", "*.allowed.example")


@cache
def field_tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the server shows, and what a client trusts that trusts it and nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "field")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(text) for text in _NAMES]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    with tempfile.TemporaryDirectory(prefix="mf-tls-") as made:
        pair = Path(made) / "pair.pem"
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        pair.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain) + pem)
        server.load_cert_chain(pair)
    return server, ssl.create_default_context(cadata=pem.decode())
