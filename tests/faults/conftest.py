"""Fixtures of the fault tests: a Podium to hurt, and the check that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Podium, running
from tests.faults.harness import Victim, wait_for
from tests.faults.leaks import Scope, Snapshot, leaked, take


@pytest.fixture(scope="session")
def podium() -> Iterator[Podium]:
    """A throw-away Podium with failpoints, whose dead processes are replaced at once."""
    with running(PODIUM_FAILPOINTS="1", PODIUM_RESTART_PAUSE_S="0.02") as found:
        yield found


@pytest.fixture
def victim(request: pytest.FixtureRequest, tmp_path: Path) -> Victim:
    """The Podium to hurt: a throw-away one, or a running one named by PODIUM_FAULTS_DIR."""
    image = os.environ.get("PODIUM_FAULTS_IMAGE", "debian/12")
    named = os.environ.get("PODIUM_FAULTS_DIR")
    state_dir = Path(named) if named else Path(request.getfixturevalue("podium").state_dir)
    found = Victim(state_dir, image, tmp_path / "client")
    found.wait_until_it_answers()
    return found


@pytest.fixture
def no_leaks(victim: Victim) -> Iterator[None]:
    """Fail the test if the host holds more after it than before; waits out work in the background."""
    warm_up(victim)
    scope = victim.scope()
    before = take(scope)
    yield
    victim.wait_until_it_answers()
    wait_for(lambda: not victim.unfinished_operations(), 60, "the end of all operations")
    settled = _Settled(before, scope)
    try:
        wait_for(settled.is_clean, 30, "a clean host")
    except AssertionError:
        raise AssertionError("left behind:\n  " + "\n  ".join(settled.last)) from None


def warm_up(victim: Victim) -> None:
    """Use the image once: its mount is kept for the next launch, by design."""
    victim.side.lxc("launch", victim.image, "fault-warm")
    victim.side.lxc("delete", "--force", "fault-warm")


class _Settled:
    """Compares again and again, and remembers what was left the last time."""

    def __init__(self, before: Snapshot, scope: Scope) -> None:
        self._before, self._scope = before, scope
        self.last: list[str] = []

    def is_clean(self) -> bool:
        self.last = leaked(self._before, take(self._scope))
        return not self.last
