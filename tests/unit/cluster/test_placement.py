"""Where new instances go."""

from __future__ import annotations

import pytest

from core.errors import NotFound, Unavailable
from services.cluster.domain.placement import place

MEMBERS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("target", "living", "instances", "wanted"),
    [
        ("", "abc", {"a": 2, "b": 1, "c": 2}, "b"),  # the fewest
        ("", "abc", {}, "b"),  # who was asked, of equals
        ("", "ac", {"c": 1, "a": 1}, "a"),  # by name, where that one does not live
        ("", "ac", {"a": 5, "c": 4}, "c"),  # the dead have the fewest, and get none
        ("a", "abc", {"a": 9}, "a"),  # as asked for
    ],
)
def test_an_instance_goes_to(target: str, living: str, instances: dict[str, int], wanted: str) -> None:
    assert place(target, here="b", members=MEMBERS, living=living, instances=instances) == wanted


def test_who_is_not_there_gets_nothing() -> None:
    with pytest.raises(NotFound, match="Cluster member not found"):
        place("x", here="b", members=MEMBERS, living=MEMBERS, instances={})
    with pytest.raises(Unavailable, match="Member 'c' does not answer"):
        place("c", here="b", members=MEMBERS, living="ab", instances={})
    with pytest.raises(Unavailable):
        place("", here="b", members=MEMBERS, living="", instances={})
