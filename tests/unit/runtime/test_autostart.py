"""Which instances start with the host."""

from __future__ import annotations

import pytest

from core.records import Instance, InstanceObserved
from services.runtime.domain.autostart import Candidate, plan


def a_candidate(name: str, status: str = "stopped", last: str = "STOPPED", **config: str) -> Candidate:
    observed = InstanceObserved(name, status=status, volatile={"volatile.last_state.power": last})
    keyed = {f"boot.autostart{key and '.'}{key}": value for key, value in config.items()}
    return Candidate(Instance(name, "default", name), observed, keyed)


@pytest.mark.parametrize(
    ("candidate", "starts"),
    [
        (a_candidate("a", last="RUNNING"), True),
        (a_candidate("a", last="STOPPED"), False),
        (a_candidate("a", last="RUNNING", **{"": "false"}), False),
        (a_candidate("a", last="STOPPED", **{"": "true"}), True),
        (a_candidate("a", status="running", **{"": "true"}), False),
        (a_candidate("a", status="error", **{"": "true"}), False),
    ],
)
def test_the_key_decides_and_without_it_the_last_state(candidate: Candidate, starts: bool) -> None:
    assert bool(plan([candidate])) == starts


def test_higher_priority_starts_first_then_by_name() -> None:
    ordered = plan(
        [
            a_candidate("b", last="RUNNING"),
            a_candidate("a", last="RUNNING"),
            a_candidate("z", last="RUNNING", priority="5", delay="3"),
        ]
    )
    assert [c.instance.name for c in ordered] == ["z", "a", "b"]
    assert ordered[0].delay_s == 3
