"""Set-up of the host, on folders of the test's own."""

from __future__ import annotations

from pathlib import Path

from deploy.host import copy_source, ensure_subordinate_ids
from deploy.privileges import ROOT
from services.runtime.domain.idmaps import FIRST, LAST


def test_root_may_map_every_range_that_instances_get(tmp_path: Path) -> None:
    """Where newuidmap is installed, liblxc uses it, and it refuses what these files do not grant."""
    (tmp_path / "subuid").write_text("ann:100000:65536")

    ensure_subordinate_ids(tmp_path)
    ensure_subordinate_ids(tmp_path)

    granted = f"root:{FIRST}:{LAST - FIRST}\n"
    assert (tmp_path / "subuid").read_text() == "ann:100000:65536\n" + granted
    assert (tmp_path / "subgid").read_text() == granted


def test_a_copy_of_the_code_has_every_module(tmp_path: Path) -> None:
    """Names of packages left out of a copy once took a module of ours that begins like `pip` with them."""
    copy_source(tmp_path)

    rooms = [path.name for path in tmp_path.iterdir()]
    ours = {p.relative_to(ROOT) for room in rooms for p in (ROOT / room).rglob("*.py")}
    assert ours == {p.relative_to(tmp_path) for p in tmp_path.rglob("*.py")}
