"""`podium admin etcd` against a real etcd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import main


@pytest.fixture(autouse=True)
def _endpoint(etcd_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_ETCD", etcd_endpoint)


def test_status_names_version_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin", "etcd", "status"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"].startswith("3.")
    assert found["size_bytes"] > 0


def test_a_snapshot_is_a_file_and_is_never_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "snapshot"
    assert main(["admin", "etcd", "snapshot", str(target)]) == 0
    assert target.stat().st_size > 1000
    assert main(["admin", "etcd", "snapshot", str(target)]) == 1


def test_an_etcd_that_is_away_is_named_in_three_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PODIUM_ETCD", "127.0.0.1:1")
    assert main(["admin", "etcd", "members"]) == 1
    assert capsys.readouterr().err.count("\n") == 3


def test_compaction_takes_the_revision_that_status_tells_once(capsys: pytest.CaptureFixture[str]) -> None:
    """What etcd refuses is told in its words: it did answer."""
    assert main(["admin", "etcd", "status"]) == 0
    revision = str(json.loads(capsys.readouterr().out)["revision"])
    assert main(["admin", "etcd", "compact", revision]) == 0

    assert main(["admin", "etcd", "compact", revision]) == 1
    assert "has been compacted" in capsys.readouterr().err
    assert main(["admin", "etcd", "compact", f"{revision}000"]) == 1
    assert "future revision" in capsys.readouterr().err
