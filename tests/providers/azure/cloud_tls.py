"""A certificate for 127.0.0.1, made once: Azure's clients send no token where there is no TLS."""

from __future__ import annotations

import atexit
import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


@cache
def folder() -> Path:
    """Where `cert.pem` (the one to trust) and `key.pem` are, until the end of this process."""
    kept = TemporaryDirectory(prefix="azure-stand-in-")
    atexit.register(kept.cleanup)
    certificate, key = made()
    Path(kept.name, "cert.pem").write_bytes(certificate)
    Path(kept.name, "key.pem").write_bytes(key)
    return Path(kept.name)


def ca_file() -> str:
    return str(folder() / "cert.pem")


@cache
def server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder() / "cert.pem", folder() / "key.pem")
    return context


def made(name: str = "azure.test", key: rsa.RSAPrivateKey | None = None) -> tuple[bytes, bytes]:
    """A certificate that signs itself, and its key, both as PEM."""
    signing = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(signing.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(signing, hashes.SHA256())
    )
    secret = signing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


@cache
def made_for_signing() -> tuple[bytes, bytes]:
    """A certificate and its key that an application may be known by; made once, as it takes a while."""
    return made("curfew.test", rsa.generate_private_key(public_exponent=65537, key_size=2048))
