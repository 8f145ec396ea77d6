"""Certificates of clients: parsing and what we demand of them. Pure.

The cryptography package is imported when the first one is read: it is a sixth of this service's memory.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from core.errors import Invalid

if TYPE_CHECKING:
    from cryptography import x509


def bad(why: str) -> Invalid:
    return Invalid("BAD_CERTIFICATE", f"Invalid certificate: {why}")


def parse(text: str) -> x509.Certificate:
    """Return the certificate in PEM or base64 DER. Raises: Invalid."""
    if "BEGIN CERTIFICATE" in text:
        from cryptography.x509 import load_pem_x509_certificate

        return _whole(load_pem_x509_certificate, text.encode(), "it is not PEM")
    try:
        # ValueError too: that is what text outside ASCII raises.
        der = base64.b64decode("".join(text.split()), validate=True)
    except ValueError as exc:
        raise bad("it is neither PEM nor base64") from exc
    return parse_der(der)


def parse_der(der: bytes) -> x509.Certificate:
    from cryptography.x509 import load_der_x509_certificate

    return _whole(load_der_x509_certificate, der, "it is not an X.509 certificate")


def _whole(load: Callable[[bytes], x509.Certificate], data: bytes, why: str) -> x509.Certificate:
    """Read every part we use now, because the library parses lazily and would fail later."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import InvalidVersion

    try:
        certificate = load(data)
        common_name(certificate)
        certificate.public_key()
        assert certificate.not_valid_before_utc and certificate.not_valid_after_utc
        return certificate
    except (ValueError, InvalidVersion, UnsupportedAlgorithm) as exc:
        raise bad(why) from exc


def check(certificate: x509.Certificate, now: datetime) -> None:
    """Raises: Invalid when it is expired, not valid yet, or its RSA key is weak."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise bad("it is expired or not valid yet")
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        raise bad("RSA key is too weak (minimum of 2048bit)")


def fingerprint(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def common_name(certificate: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def utc_now() -> datetime:
    return datetime.now(UTC)
