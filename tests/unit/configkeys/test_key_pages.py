"""What is written about keys comes from their table."""

from __future__ import annotations

from pathlib import Path

from core.configkeys import instancekeys, render

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "config-keys.md"


def test_the_page_about_keys_is_current() -> None:
    """`make docs` writes it."""
    assert _PAGE.read_text() == render.page()


def test_every_key_stands_on_the_page() -> None:
    text = _PAGE.read_text()
    for key in (*instancekeys.KEYS, *instancekeys.MACHINES):
        assert f"`{key.name}`" in text, key.name


def test_programs_get_the_same_in_lxds_shape() -> None:
    """LXD's clients complete keys from it."""
    groups = render.metadata()["configs"]["instance"]
    (memory,) = (entry for entry in groups["limits"]["keys"] if "limits.memory" in entry)
    assert memory["limits.memory"]["liveupdate"] == "yes"
    (start,) = (entry for entry in groups["boot"]["keys"] if "boot.autostart" in entry)
    assert start["boot.autostart"]["type"] == "bool"
    listed = {name for group in groups.values() for entry in group["keys"] for name in entry}
    assert "raw.lxc" not in listed
    assert {"user.*", "environment.*", "security.privileged"} <= listed
