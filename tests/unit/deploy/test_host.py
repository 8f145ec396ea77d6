"""Set-up of the host, on folders of the test's own."""

from __future__ import annotations

from pathlib import Path

from deploy.host import ensure_subordinate_ids
from services.runtime.domain.idmaps import FIRST, LAST


def test_root_may_map_every_range_that_instances_get(tmp_path: Path) -> None:
    """Where newuidmap is installed, liblxc uses it, and it refuses what these files do not grant."""
    (tmp_path / "subuid").write_text("ann:100000:65536")

    ensure_subordinate_ids(tmp_path)
    ensure_subordinate_ids(tmp_path)

    granted = f"root:{FIRST}:{LAST - FIRST}\n"
    assert (tmp_path / "subuid").read_text() == "ann:100000:65536\n" + granted
    assert (tmp_path / "subgid").read_text() == granted
