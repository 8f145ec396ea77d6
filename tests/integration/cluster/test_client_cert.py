"""`podium admin client-cert`: what it writes, and what it refuses in three lines."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from cli.main import main
from services.cluster.authority import Authority


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("PODIUM_DIR", str(folder))
    Authority(folder / "tls", "").ensure("alpha")
    return folder


def test_it_writes_a_certificate_of_the_ca_with_its_key(state: Path, tmp_path: Path) -> None:
    assert main(["admin", "client-cert", "me", str(tmp_path / "out")]) == 0

    made = x509.load_pem_x509_certificate((tmp_path / "out" / "me.crt").read_bytes())
    made.verify_directly_issued_by(x509.load_pem_x509_certificate((state / "tls" / "ca.crt").read_bytes()))
    assert stat.S_IMODE((tmp_path / "out" / "me.key").stat().st_mode) == 0o600
    assert (tmp_path / "out" / "ca.crt").exists()


@pytest.mark.parametrize("name", ["../me", "ca", ".", "a" * 65, "a\nb"])
def test_a_name_that_cannot_be_one_is_refused(
    state: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["admin", "client-cert", name, str(tmp_path / "out")]) != 0
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_key_is_never_overwritten(state: Path, tmp_path: Path) -> None:
    assert main(["admin", "client-cert", "me", str(tmp_path)]) == 0
    key = (tmp_path / "me.key").read_bytes()

    assert main(["admin", "client-cert", "me", str(tmp_path)]) == 1
    assert (tmp_path / "me.key").read_bytes() == key


def test_a_machine_without_a_ca_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PODIUM_DIR", str(tmp_path / "nothing"))
    assert main(["admin", "client-cert", "me", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "run this as root on a member" in told
    assert told.count("\n") == 3
