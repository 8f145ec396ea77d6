"""What the documents name is there: files, rooms and pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.house.test_structure import ROOMS, ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_CODE = re.compile(r"`([\w./-]+)`")
_LINK = re.compile(r"\]\(([^)#:]+)\)")


def _named(page: Path) -> Iterator[str]:
    """Yield the paths of this repository that *page* names in full."""
    for path in _CODE.findall(page.read_text()):
        if path.partition("/")[0] in (*ROOMS, "tests", "docs", "protos") and "/" in path:
            yield path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    missing = [path for path in _named(page) if not (ROOT / path).exists()]
    dead = [link for link in _LINK.findall(text) if not (page.parent / link).exists()]

    assert missing == [] and dead == []


def test_every_test_file_that_the_status_page_names_is_there() -> None:
    """Most are named without their folder, which stands before them."""
    known = {path.name for path in (ROOT / "tests").rglob("*.py")}
    named = set(re.findall(r"`(test_\w+\.py)`", (ROOT / "docs/status.md").read_text()))

    assert named - known == set()


def test_every_page_is_named_somewhere() -> None:
    """Who begins at the README comes to every page."""
    texts = {page: page.read_text() for page in PAGES}
    reached = [ROOT / "README.md"]
    for page in reached:
        found = {p for p in PAGES if p.name in texts[page] and p.name != "README.md"}
        reached += sorted(found - set(reached))

    assert [str(p.relative_to(ROOT)) for p in PAGES if p not in reached and p.name != "README.md"] == []
