"""`podium explain`, `diff`, `logs` and `top`: what they make of the server's answers."""

from typing import Any

import pytest

from cli.difference import compared
from cli.explain import device_sources, doing, sources
from cli.logs import added, tail
from cli.top import Figures, rates

NEVER = "1970-01-01T00:00:00Z"


def an_instance(**changes: Any) -> dict[str, Any]:
    plain = {
        "name": "web",
        "status": "Stopped",
        "last_used_at": NEVER,
        "config": {"limits.cpu": "2"},
        "expanded_config": {"limits.cpu": "2", "limits.memory": "1GiB", "volatile.uuid": "x"},
        "devices": {},
        "expanded_devices": {"root": {"type": "disk", "path": "/"}},
    }
    return {**plain, **changes}


PROFILES: list[dict[str, Any]] = [
    {"name": "default", "config": {"limits.cpu": "1"}, "devices": {"root": {"type": "disk", "path": "/"}}},
    {"name": "big", "config": {"limits.memory": "1GiB", "limits.cpu": "8"}, "devices": {}},
]


def test_each_value_names_who_set_it_and_what_it_hides():
    """The question that --expanded leaves open."""
    assert sources(an_instance(), PROFILES, "config") == [
        ("limits.cpu", "2", "instance (over profile default: 1, profile big: 8)"),
        ("limits.memory", "1GiB", "profile big"),
    ]
    assert device_sources(an_instance(), PROFILES) == [("root", "path=/ type=disk", "profile default")]


@pytest.mark.parametrize(
    ("changes", "operations", "words", "said"),
    [
        ({}, [], "", "Stopped; it was never started. podium start web"),
        ({"status": "Ready"}, [], "", "Running, and says that it is ready"),
        ({}, [("Running", "Starting instance", "")], "", "Stopped; waits for: starting instance"),
        ({}, [("Failure", "Starting instance", "no space")], "", "starting instance failed: no space"),
        ({"last_used_at": "2026-11-24T10:00:00Z"}, [], "no init", "Stopped; its last start failed: no init"),
    ],
)
def test_one_line_says_why(
    changes: dict[str, Any], operations: list[tuple[str, str, str]], words: str, said: str
):
    """What a user would otherwise gather from list, operations and logs."""
    known = [{"id": "1", "status": s, "description": d, "err": e} for s, d, e in operations]
    assert said in doing(an_instance(**changes), known, words)


def test_maps_are_compared_key_by_key():
    """A list or a text is one value; what Podium keeps for itself is no difference."""
    before = {"config": {"a": "1", "gone": "x", "volatile.uuid": "u"}, "profiles": ["default"]}
    after = {"config": {"a": "2", "new": "y\nz"}, "profiles": ["default", "big"]}

    assert compared(before, after) == [
        "- config.a: 1",
        "+ config.a: 2",
        "- config.gone: x",
        "+ config.new: y\\nz",
        "- profiles: default",
        "+ profiles: default, big",
    ]


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        (b"one\n", b"one\ntwo\n", b"two\n"),
        (b"one\ntwo\n", b"two\nthree\n", b"two\nthree\n"),
        (b"x" * 500, b"x" * 300 + b"new", b"new"),
        (b"", b"first", b"first"),
        (b"old", b"", b""),
    ],
)
def test_a_log_is_followed_when_it_grows_is_cut_or_begins_anew(before: bytes, now: bytes, new: bytes):
    """Consoles are kept to 128 KiB: the beginning goes while the end comes."""
    assert added(before, now) == new


def test_the_last_lines_of_a_log():
    assert tail(b"1\n2\n3\n", 2) == b"2\n3\n"


def test_rates_are_what_came_between_two_looks():
    """In percent of one processor; a counter that fell is of another run."""
    before = {"p/a": Figures("a", 1_000_000_000, 5, 1, 0, 100, 0), "p/b": Figures("b", 9, 5, 1, 0, 9, 9)}
    now = {
        "p/a": Figures("a", 2_000_000_000, 6, 1, 0, 300, 50),
        "p/b": Figures("b", 4, 5, 1, 0, 2, 2),
        "p/new": Figures("new", 7, 5, 1, 0, 7, 7),
    }

    found = {rate.name: rate for rate in rates(before, now, 2.0)}

    assert (found["a"].cpu, found["a"].received, found["a"].sent) == (50.0, 100.0, 25.0)
    assert found["b"].received == 1.0
    assert found["new"].received == 0
