"""The cluster's certificate authority: its key, the certificates of members and of gRPC clients.

Works on files only, as root, who alone may read the CA's key until a cluster is founded. Everything
ensured may be repeated.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import Invalid, NotFound
from core.rpc.tls import CLIENT, MEMBER, id_of
from core.settings import USER

_TEN_YEARS = datetime.timedelta(days=3650)
_RENEW = datetime.timedelta(days=30)
_SERVE, _CALL = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Granted:
    """What a member that joins gets, as PEM: both CAs, and a certificate of each for its key."""

    ca: bytes
    member: bytes
    etcd_ca: bytes
    etcd: bytes


@dataclass(frozen=True)
class Wanted:
    """What a certificate says. *names* are its subject alternative names."""

    common_name: str
    names: Sequence[x509.GeneralName] = ()
    usages: Sequence[x509.ObjectIdentifier] = (_SERVE, _CALL)
    is_ca: bool = False
    lifetime: datetime.timedelta = _TEN_YEARS


class Authority:
    """The CA in *folder*. *group* may enter the folder; "" leaves owners as they are."""

    def __init__(self, folder: Path, group: str) -> None:
        self._folder = folder
        self._group = group

    def ensure(self, member: str, host: str = "", *, clustered: bool = False) -> None:
        """Make the CA, the certificate of *member* (reached at *host*) and the REST certificate.

        *clustered*: and what its etcd shows to those of others. A member that joined has no CA's key, and
        keeps what it was given.
        """
        self._make_folder()
        wanted = _member(member, host)
        has_ca = not clustered or (self._folder / "ca.key").exists()
        if has_ca and not self._is_good("member", wanted):
            # Its key may be kept elsewhere; it is needed only now.
            if not (self._folder / "ca.key").exists():
                self._write("ca", issue(Wanted("Podium CA", is_ca=True)))
            self._write("member", issue(wanted, self._ca()))
        if not (self._folder / "server.key").exists():
            self._write("server", issue(Wanted(member, _names(member, host))))
        if clustered and has_ca:
            self._ensure_etcd(wanted)
        self._own_all(clustered)

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o750, exist_ok=True)
        self._own(self._folder, 0o750, "root")

    def _own_all(self, clustered: bool) -> None:
        """Whoever signs those that join is the cluster service; without a cluster nobody but root does."""
        for stem in ("ca", "etcd-ca", "member", "etcd", "server"):
            is_roots = stem == "ca" and not clustered
            with contextlib.suppress(FileNotFoundError):
                self._own(self._folder / f"{stem}.crt", 0o644, "root")
            with contextlib.suppress(FileNotFoundError):
                self._own(self._folder / f"{stem}.key", 0o600, "root" if is_roots else USER)

    def _ensure_etcd(self, wanted: Wanted) -> None:
        if not (self._folder / "etcd-ca.key").exists():
            self._write("etcd-ca", issue(Wanted("Podium etcd CA", is_ca=True)))
        if not self._is_good("etcd", wanted):
            key = load_pem_private_key((self._folder / "member.key").read_bytes(), None)
            made = certify(key.public_key(), wanted, self._ca("etcd-ca"))
            (self._folder / "etcd.crt").write_bytes(made)

    # --- joining -----------------------------------------------------------------------------------

    def request(self, member: str) -> bytes:
        """Return what *member* asks a certificate with, as PEM; the key is made here and stays here."""
        self._make_folder()
        key = ec.generate_private_key(ec.SECP384R1())
        write_private(self._folder / "member.key", _key_pem(key))
        subject = _subject(member)
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA384())
        return csr.public_bytes(Encoding.PEM)

    def grant(self, request: bytes, member: str, host: str) -> Granted:
        """Sign a *request* for *member*, reached at *host*; only its key is taken from it.

        Raises:
            Invalid: it is none, or its key is not of the kind that members have.
            NotFound: this member has no CA.
        """
        try:
            csr = x509.load_pem_x509_csr(request)
            key, is_whole = csr.public_key(), csr.is_signature_valid
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise Invalid("BAD_REQUEST", "The request for a certificate cannot be read") from exc
        if not is_whole or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
            raise Invalid("BAD_REQUEST", "The request for a certificate has no key of curve P-384")
        wanted, ca, etcd = _member(member, host), self._ca(), self._ca("etcd-ca")
        return Granted(ca.certificate, certify(key, wanted, ca), etcd.certificate, certify(key, wanted, etcd))

    def install(self, granted: Granted) -> None:
        """Keep what another member granted."""
        for stem, pem in zip(("ca", "member", "etcd-ca", "etcd"), astuple(granted), strict=True):
            (self._folder / f"{stem}.crt").write_bytes(pem)
        self._own_all(clustered=True)

    def client(self, name: str, *, days: int = 365) -> Pair:
        """Return a new certificate with which *name* may call every service as an administrator.

        Raises:
            Invalid: the name or the number of days cannot be.
            NotFound: this member has no CA.
        """
        if not name or len(name) > 64 or not name.isprintable():
            raise Invalid("BAD_NAME", "A client's name has 1 to 64 printable characters", about=name[:64])
        if not 0 < days <= 3650:
            raise Invalid("BAD_DAYS", "A certificate lasts 1 to 3650 days", about=str(days))
        names = [x509.UniformResourceIdentifier(id_of(CLIENT, name))]
        lifetime = datetime.timedelta(days=days)
        return issue(Wanted(name, names, (_CALL,), lifetime=lifetime), self._ca())

    def _ca(self, stem: str = "ca") -> Pair:
        try:
            return Pair(*((self._folder / f"{stem}.{kind}").read_bytes() for kind in ("crt", "key")))
        except OSError as exc:
            raise NotFound(
                "NO_CA", f"The CA's key in {self._folder} is not readable; run this as root on a member"
            ) from exc

    def _is_good(self, stem: str, wanted: Wanted) -> bool:
        """Whether the certificate says what is wanted, is of our CA, and will last a while."""
        with contextlib.suppress(OSError, ValueError):
            found = x509.load_pem_x509_certificate((self._folder / f"{stem}.crt").read_bytes())
            by, key = ("etcd-ca", "member") if stem == "etcd" else ("ca", stem)
            ca = x509.load_pem_x509_certificate((self._folder / f"{by}.crt").read_bytes())
            found.verify_directly_issued_by(ca)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            lasts = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
            has_key = (self._folder / f"{key}.key").exists() and self._fits(found, key)
            return has_key and lasts > _RENEW and set(names) == set(wanted.names)
        return False

    def _fits(self, certificate: x509.Certificate, stem: str) -> bool:
        key = load_pem_private_key((self._folder / f"{stem}.key").read_bytes(), None)
        return key.public_key() == certificate.public_key()

    def _write(self, stem: str, pair: Pair) -> None:
        """Write certificate, then key; the key is what says that both exist."""
        (self._folder / f"{stem}.key").unlink(missing_ok=True)
        (self._folder / f"{stem}.crt").write_bytes(pair.certificate)
        new = self._folder / f"{stem}.key.new"
        write_private(new, pair.key)
        os.rename(new, self._folder / f"{stem}.key")

    def _own(self, path: Path, mode: int, user: str) -> None:
        if self._group:
            with contextlib.suppress(LookupError, PermissionError):
                shutil.chown(path, user, self._group)
        os.chmod(path, mode)


def write_private(path: Path, data: bytes) -> None:
    """Write *data* where only its owner can read it, from the first byte on."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _names(member: str, host: str) -> list[x509.GeneralName]:
    return _host_names({member, "localhost", "127.0.0.1", "::1", host} - {""})


def _member(member: str, host: str) -> Wanted:
    uri = x509.UniformResourceIdentifier(id_of(MEMBER, member))
    return Wanted(member, [*_names(member, host), uri])


def _host_names(names: set[str]) -> list[x509.GeneralName]:
    return [_host_name(name) for name in sorted(names)]


def _host_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)


def issue(wanted: Wanted, ca: Pair | None = None) -> Pair:
    """Return a new key with its certificate, signed by *ca* or by itself."""
    key = ec.generate_private_key(ec.SECP384R1())
    if not ca:
        return Pair(_signed(key.public_key(), wanted, _subject(wanted.common_name), key), _key_pem(key))
    return Pair(certify(key.public_key(), wanted, ca), _key_pem(key))


def certify(key: Any, wanted: Wanted, ca: Pair) -> bytes:
    """Return a certificate of *ca* for a public *key*, as PEM."""
    issuer = x509.load_pem_x509_certificate(ca.certificate).subject
    loaded = load_pem_private_key(ca.key, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return _signed(key, wanted, issuer, loaded)


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _signed(key: Any, wanted: Wanted, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(issuer, _subject(wanted.common_name), key, x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + wanted.lifetime)
        .add_extension(x509.BasicConstraints(wanted.is_ca, 0 if wanted.is_ca else None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(wanted.usages), critical=False)
    )
    if wanted.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(wanted.names), critical=False)
    return builder.sign(issuer_key, hashes.SHA384()).public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
