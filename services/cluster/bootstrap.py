"""First steps of a member: keys and certificates, the default project and profile. Repeatable.

Run as root before the services: `python -m services.cluster.bootstrap`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import Stale
from core.records import Profile, Project
from core.settings import Settings
from core.state import keys
from core.state.etcd import EtcdStore
from core.state.store import Txn

_YEARS = 10


def ensure_tls(folder: Path, group: str) -> None:
    """Make the CA, the member's certificate (signed by it) and the REST certificate (self-signed)."""
    folder.mkdir(mode=0o750, exist_ok=True)
    _own(folder, group, 0o750)
    name = socket.gethostname()
    if not (folder / "ca.key").exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _write(folder, "ca", key, _certificate(key, "Podium CA", None, None, ca=True), group, 0o600)
    ca_cert = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    if not (folder / "member.key").exists():
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        ca_key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP384R1())
        _write(folder, "member", key, _certificate(key, name, ca_key, ca_cert, ca=False), group, 0o640)
    if not (folder / "server.key").exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _write(folder, "server", key, _certificate(key, name, None, None, ca=False), group, 0o640)


def _certificate(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    issuer_key: ec.EllipticCurvePrivateKey | None,
    issuer: x509.Certificate | None,
    *,
    ca: bool,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name), x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    return builder.sign(issuer_key or key, hashes.SHA384())


def _write(
    folder: Path,
    stem: str,
    key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    group: str,
    mode: int,
) -> None:
    """Write certificate, then key; the key is what says that both exist."""
    (folder / f"{stem}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fd = os.open(folder / f"{stem}.key.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(pem)
    _own(folder / f"{stem}.key.new", group if mode & 0o040 else "", mode)
    _own(folder / f"{stem}.crt", group, 0o644)
    os.rename(folder / f"{stem}.key.new", folder / f"{stem}.key")


def _own(path: Path, group: str, mode: int) -> None:
    if group:
        with contextlib.suppress(LookupError, PermissionError):
            shutil.chown(path, group=group)
    os.chmod(path, mode)


async def ensure_defaults(settings: Settings) -> None:
    """Create project and profile "default" unless they exist."""
    store = EtcdStore(settings.etcd_endpoint, member=settings.member, service="bootstrap")
    features = {"features.images": "true", "features.profiles": "true", "features.storage.volumes": "true"}
    features["features.networks"] = "true"
    project = Project("default", "Default project", features)
    txn = Txn().absent(keys.project("default")).put(keys.project("default"), project)
    profile = keys.profile("default", "default")
    txn.absent(profile).put(profile, Profile("default", "default", "Default profile"))
    with contextlib.suppress(Stale):
        await store.commit(txn)
    await store.close()


def main() -> None:
    settings = Settings.from_env()
    ensure_tls(settings.state_dir / "tls", settings.group)
    asyncio.run(ensure_defaults(settings))


if __name__ == "__main__":
    main()
