"""Names that LXD's clients may use, and names that nobody may."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import names
from core.errors import Invalid

HOSTILE = ["", ".", "..", "a/b", "../etc", "a\nb", "a\0b", "a" * 300, "\u2028", "\x7f"]


@pytest.mark.parametrize("name", ["c1", "a", "Web-01", "a" * 63])
def test_good_instance_names_pass(name: str) -> None:
    assert names.instance_name(name) == name


@pytest.mark.parametrize("name", [*HOSTILE, "-a", "a-", "1a", "a_b", "a.b", "é", "a" * 64, "c1\n"])
def test_bad_instance_names_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        names.instance_name(name)


@pytest.mark.parametrize("name", [*HOSTILE, "-x", "a b", "a" * 16, "x", "all", "default"])
def test_bad_network_names_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        names.network_name(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_profiles_projects_and_pools_have_no_hostile_names(name: str) -> None:
    for check in (lambda n: names.plain_name("profile", n), names.project_name, names.pool_name):
        with pytest.raises(Invalid):
            check(name)


@pytest.mark.parametrize("prefix", ["", "xyz", "AB", "../", "a" * 65, "a\n"])
def test_what_is_not_hex_is_no_fingerprint(prefix: str) -> None:
    """Nothing is looked up by it; clients try every unknown alias as a fingerprint too."""
    assert not names.is_fingerprint(prefix)
    assert names.is_fingerprint("0af")


@given(st.text())
def test_a_name_that_passes_is_one_path_part_of_one_line(text: str) -> None:
    for check in (names.instance_name, names.network_name, names.project_name, names.pool_name):
        try:
            name = check(text)
        except Invalid:
            continue
        assert "/" not in name and name.isprintable() and name not in (".", "..", "")
