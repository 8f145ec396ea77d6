"""What a project may hold: counts and sums, in LXD's words."""

from __future__ import annotations

import pytest

from core.errors import Invalid, LimitReached
from core.policy import limits
from core.policy.subjects import Held, Subject
from core.records import Project, Volume

ROOT = {"type": "disk", "path": "/", "pool": "default"}


def a_project(**config: str) -> Project:
    return Project("p1", "", {f"limits.{key.replace('_', '-')}": value for key, value in config.items()})


def holding(*configs: dict[str, str], size: str = "1GiB", volumes: dict[str, str] | None = None) -> Held:
    devices = {"root": {**ROOT, "size": size}}
    found = (Subject("container", f"c{n}", config, devices) for n, config in enumerate(configs, 1))
    return Held(tuple(found), tuple(_volume(name, size) for name, size in (volumes or {}).items()))


def _volume(name: str, size: str) -> Volume:
    return Volume(id=name, project="p1", name=name, config={"size": size} if size else {})


@pytest.mark.parametrize(
    ("project", "held", "words"),
    [
        (a_project(memory="1GiB"), holding({"limits.memory": "512MiB"}, {"limits.memory": "512MiB"}), ""),
        (
            a_project(memory="1GiB"),
            holding({"limits.memory": "512MiB"}, {"limits.memory": "513MiB"}),
            'Reached maximum aggregate value "1GiB" for "limits.memory" in project "p1"',
        ),
        (
            a_project(memory="1GiB"),
            holding({}),
            'Failed getting usage of project entities: Instance "c1" in project "p1" has no "limits.memory" '
            "config, either directly or via a profile",
        ),
        (
            a_project(memory="1GiB"),
            holding({"limits.memory": "50%"}),
            'Failed getting usage of project entities: Failed parsing "limits.memory" for instance "c1" in '
            'project "p1"',
        ),
        (
            a_project(cpu="2"),
            holding({"limits.cpu": "0-1"}),
            'Failed getting usage of project entities: Failed parsing "limits.cpu" for instance "c1" in '
            'project "p1"',
        ),
        (a_project(disk="3GiB"), holding({}, volumes={"v": "2GiB"}), ""),
        (
            a_project(disk="3GiB"),
            holding({}, volumes={"v": "3GiB"}),
            'Reached maximum aggregate value "3GiB" for "limits.disk" in project "p1"',
        ),
        (
            a_project(disk="3GiB"),
            holding({}, volumes={"v": ""}),
            'Failed getting usage of project entities: Custom volume "v" in project "p1" has no "size" '
            "config set",
        ),
        (
            a_project(disk="3GiB"),
            holding({}, size=""),
            'Failed getting usage of project entities: Instance "c1" in project "p1" has no "size" config '
            "set on the root device either directly or via a profile",
        ),
        (
            a_project(instances="1"),
            holding({}, {}),
            'Reached maximum number of instances in project "p1"',
        ),
        (
            a_project(containers="1"),
            holding({}, {}),
            'Reached maximum number of instances of type "container" in project "p1"',
        ),
        (a_project(virtual_machines="0", instances="2"), holding({}, {}), ""),
    ],
)
def test_what_is_written_fits_the_project(project: Project, held: Held, words: str) -> None:
    if not words:
        return limits.check(project, held, is_new=True)
    with pytest.raises((LimitReached, Invalid)) as caught:
        limits.check(project, held, is_new=True)
    assert str(caught.value) == words
    return None


@pytest.mark.parametrize(
    ("project", "held", "words"),
    [
        (a_project(instances="2"), holding({}, {}), ""),
        (
            a_project(instances="1"),
            holding({}, {}),
            'Can\'t change limits.instances in project "p1": "limits.instances" is too low: there currently '
            'are 2 total instances in project "p1"',
        ),
        (
            a_project(containers="0"),
            holding({}),
            'Can\'t change "limits.containers" in project "p1": "limits.containers" is too low: there '
            'currently are 1 instances of type container in project "p1"',
        ),
        (
            a_project(memory="256MiB"),
            holding({"limits.memory": "512MiB"}),
            '"limits.memory" is too low: current total is "512.0MiB"',
        ),
        (
            a_project(processes="1"),
            holding({"limits.processes": "200"}),
            '"limits.processes" is too low: current total is "200"',
        ),
        (
            a_project(cpu="1"),
            holding({}),
            'Instance "c1" in project "p1" has no "limits.cpu" config, either directly or via a profile',
        ),
    ],
)
def test_new_limits_fit_what_is_there(project: Project, held: Held, words: str) -> None:
    if not words:
        return limits.check_change(Project("p1"), project, held)
    with pytest.raises((LimitReached, Invalid)) as caught:
        limits.check_change(Project("p1"), project, held)
    assert str(caught.value) == words
    return None


def test_usage_leaves_out_what_has_no_bound() -> None:
    held = holding({"limits.memory": "50%", "limits.cpu": "2"}, {}, volumes={"v": "1GiB", "w": ""})
    used = limits.usage(held)
    assert used == {
        "limits.cpu": 2, "limits.disk": 3 << 30, "limits.memory": 0, "limits.processes": 0
    }  # fmt: skip
