"""What this service needs to know besides the shared settings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from core.settings import Settings


@dataclass(frozen=True)
class ClusterSettings:
    """certificate: PEM of the REST API; fingerprint: hex SHA-256 of its DER form."""

    member: str
    certificate: str
    fingerprint: str


def load(settings: Settings) -> ClusterSettings:
    pem = (settings.state_dir / "tls" / "server.crt").read_text()
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    return ClusterSettings(settings.member, pem, hashlib.sha256(der).hexdigest())
