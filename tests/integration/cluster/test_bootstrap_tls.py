"""The keys and certificates that a member's first start makes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.cluster.authority import Authority


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    Authority(tmp_path / "tls", "").ensure("alpha")
    return tmp_path / "tls"


def test_the_ca_signs_the_member_and_not_the_server(tls: Path) -> None:
    ca = read(tls / "ca.crt")
    read(tls / "member.crt").verify_directly_issued_by(ca)
    with pytest.raises(ValueError):
        read(tls / "server.crt").verify_directly_issued_by(ca)


@pytest.mark.parametrize("stem", ["ca", "member", "server"])
def test_key_and_certificate_belong_together(tls: Path, stem: str) -> None:
    key = load_pem_private_key((tls / f"{stem}.key").read_bytes(), None)
    assert key.public_key() == read(tls / f"{stem}.crt").public_key()


def test_keys_are_not_for_everyone(tls: Path) -> None:
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tls.glob("*.key")}
    assert modes == {"ca.key": 0o600, "member.key": 0o600, "server.key": 0o600}


def test_a_second_run_changes_nothing(tls: Path) -> None:
    before = contents(tls)
    Authority(tls, "").ensure("alpha")
    assert contents(tls) == before


@pytest.mark.parametrize("stem", ["member", "server"])
def test_a_run_that_died_before_the_key_is_completed(tls: Path, stem: str) -> None:
    (tls / f"{stem}.key").unlink()
    Authority(tls, "").ensure("alpha")
    test_key_and_certificate_belong_together(tls, stem)


def test_a_ca_whose_key_is_kept_elsewhere_stays_the_ca(tls: Path) -> None:
    """Clients that hold its certificates must not be locked out by the next start."""
    (tls / "ca.key").unlink()
    before = contents(tls)
    Authority(tls, "").ensure("alpha")
    assert contents(tls) == before


def test_a_member_with_another_name_gets_another_certificate(tls: Path) -> None:
    """The name is what other members check."""
    Authority(tls, "").ensure("beta")
    names = read(tls / "member.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "beta" in names.get_values_for_type(x509.DNSName)
    assert "alpha" not in names.get_values_for_type(x509.DNSName)
    test_key_and_certificate_belong_together(tls, "member")
