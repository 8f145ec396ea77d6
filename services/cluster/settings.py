"""What this service needs to know besides the shared settings."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass

from core.settings import Settings


@dataclass(frozen=True)
class ClusterSettings:
    """certificate: PEM of the REST API; fingerprint: hex SHA-256 of its DER form."""

    member: str
    certificate: str
    fingerprint: str


def load(settings: Settings) -> ClusterSettings:
    pem = (settings.tls_dir / "server.crt").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    return ClusterSettings(settings.member, pem, hashlib.sha256(der).hexdigest())
