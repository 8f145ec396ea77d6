"""Each failpoint of each service: the process dies there, or the step fails there; nothing is half-done.

The points come from the running services, which list what their stories registered. So a new story
without a scenario fails the first test, and a new step is covered by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core import failpoints
from tests.faults import downloads, snapshots, transfers, volumes
from tests.faults.harness import Victim, wait_for
from tests.faults.leaks import leaked, take
from tests.faults.stories import ABSENT, SCENARIOS, Points, Scenario, settled

EVERY = (
    *SCENARIOS,
    *snapshots.SCENARIOS,
    *transfers.SCENARIOS,
    *downloads.SCENARIOS,
    *volumes.SCENARIOS,
)
WITNESS, QUICK = "fault-witness", "fault-quick"
# It is started hundreds of times, and what systemd does in the meantime is not what dies here.
INIT = "#!/bin/sh\ntrap 'exit 0' PWR RTMIN+3\nwhile :; do sleep 60 & wait $!; done\n"
UNDO = ".undo"


@pytest.fixture
def victim(victim: Victim) -> Victim:
    """The Podium to hurt, whose instances boot in no time."""
    side = victim.side
    if side.request("GET", f"/1.0/images/aliases/{QUICK}").get("error_code"):
        side.lxc("launch", victim.image, QUICK)
        write = "rm /sbin/init && cat > /sbin/init && chmod 755 /sbin/init"
        done = side.try_lxc("exec", QUICK, "--", "sh", "-c", write, stdin=INIT.encode())
        assert done.returncode == 0, done.stderr
        side.lxc("publish", "--force", QUICK, "--alias", QUICK)
        side.lxc("delete", "--force", QUICK)
    return replace(victim, image=QUICK)


@pytest.fixture
def witness(victim: Victim) -> Iterator[int]:
    """The process of a container that nobody asks anything of; it must outlive all."""
    if not victim.side.names(WITNESS):
        victim.side.lxc("launch", victim.image, WITNESS)
    yield victim.pids(WITNESS)[WITNESS]
    settled(victim)


@pytest.fixture
def points(victim: Victim) -> Points:
    found = Points.read(victim)
    assert found.of, "no failpoints: start Podium with PODIUM_FAILPOINTS=1"
    return found


@contextlib.contextmanager
def armed(victim: Victim, **what: str) -> Iterator[list[str]]:
    """Arm points for the block, which notes what was said; what was not hit is disarmed, and named."""
    folder = failpoints.folder(victim.state_dir)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    files = {name: folder / name for name in what}
    for name, file in files.items():
        file.write_text(what[name])
    said = list[str]()
    try:
        yield said
        for name, file in files.items():
            wait_for(lambda file=file: not file.exists(), 20, f"failpoint {name}; the answer was {said}")
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)


def ask(victim: Victim, scenario: Scenario) -> str:
    """Ask, and return what was said against it; a service that died meanwhile says nothing useful."""
    try:
        scenario.ask(victim)
    except (AssertionError, OSError, ValueError) as exc:
        return str(exc) or repr(exc)
    return ""


def check(victim: Victim, scenario: Scenario, witness: int, point: str) -> None:
    """The thing is whole or gone and can be removed; nobody else noticed; nothing lies about."""
    settled(victim)
    state = scenario.thing.state(victim)
    assert state in scenario.may_be, f"{point}: left {state}"
    assert Path(f"/proc/{witness}").exists(), f"{point}: the witness died"


def finish(victim: Victim, scenario: Scenario, before: object, point: str) -> None:
    scenario.thing.remove(victim)
    left = list[str]()

    def is_clean() -> bool:
        left[:] = leaked(before, take(victim.scope()))  # type: ignore[arg-type]
        return not left

    try:
        wait_for(is_clean, 10, "a clean host")
    except AssertionError:
        raise AssertionError(f"{point} left behind:\n  " + "\n  ".join(left)) from None


def test_every_story_of_every_service_has_a_scenario(points: Points) -> None:
    """Who adds a story adds a line to the table of scenarios; then its steps are tested here."""
    assert points.kinds == {scenario.kind for scenario in EVERY}


@pytest.mark.parametrize("scenario", EVERY, ids=str)
def test_a_death_at_any_point_is_mended(
    victim: Victim, witness: int, points: Points, scenario: Scenario
) -> None:
    """SIGKILL at the point: after the restart the operation ended, done or undone."""
    scenario.thing.remove(victim)
    before = take(victim.scope())
    for point in points.at(scenario.kind):
        service = points.of[point]
        scenario.thing.reach(victim, scenario.before)
        pid = victim.processes()[service]
        failing = {_last_step(points, scenario.kind): "fail"} if point.endswith(UNDO) else {}
        with armed(victim, **{point: "die"}, **failing) as said:
            said.append(ask(victim, scenario))
        wait_for(lambda: victim.processes().get(service, pid) != pid, 20, f"a restart after {point}")  # noqa: B023
        check(victim, scenario, witness, point)
        finish(victim, scenario, before, point)


@pytest.mark.parametrize("scenario", EVERY, ids=str)
def test_a_failure_at_any_point_is_undone(
    victim: Victim, witness: int, points: Points, scenario: Scenario
) -> None:
    """The step raises: the reason is told, and what was to be made can be made at once."""
    scenario.thing.remove(victim)
    before = take(victim.scope())
    for point in points.at(scenario.kind):
        if point.endswith(UNDO):
            continue
        scenario.thing.reach(victim, scenario.before)
        with armed(victim, **{point: "fail"}) as said:
            said.append(ask(victim, scenario))
        if scenario.kind != "instance.exit":
            assert point in said[0], f"{point}: the reason is not told, but {said}"
        if scenario.before == ABSENT:
            assert scenario.keeps or scenario.thing.state(victim) == ABSENT, f"{point}: not undone"
            assert ask(victim, scenario) == "", f"{point}: the name is not free at once"
        check(victim, scenario, witness, point)
        finish(victim, scenario, before, point)


def _last_step(points: Points, kind: str) -> str:
    """A point late enough that the undo of every earlier step runs when it fails."""
    return next(p for p in reversed(points.at(kind)) if p.endswith(".before"))
