"""Limits as each version of cgroups wants them, on trees of plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.errors import NotFound
from services.runtime.domain.limits import parse_spans
from services.runtime.kernel.cgroups import LinuxCgroups

ID = "c1"
V1_FILES = {
    "memory": {"limit_in_bytes": "-1", "soft_limit_in_bytes": "-1", "swappiness": "60"},
    "pids": {"max": "max"},
    "cpuset": {"cpus": "0"},
    "cpu": {"cfs_period_us": "100000", "cfs_quota_us": "-1", "shares": "1024"},
}
V2_FILES = (
    "memory.max",
    "memory.high",
    "memory.swap.max",
    "pids.max",
    "cpuset.cpus",
    "cpu.max",
    "cpu.weight",
)


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for controller, files in V1_FILES.items():
        folder = tmp_path / controller / "podium" / ID
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / f"{controller}.{name}").write_text(text)
    (tmp_path / "memory" / "memory.swappiness").write_text("60")
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    folder = tmp_path / "podium" / ID
    folder.mkdir(parents=True)
    for name in (*V2_FILES, "cgroup.freeze"):
        (folder / name).write_text("0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("config", "on_v1", "on_v2"),
    [
        (
            {"limits.memory": "1GiB"},
            {"memory.limit_in_bytes": "1073741824"},
            {"memory.max": "1073741824"},
        ),
        (
            {"limits.memory": "1GiB", "limits.memory.enforce": "soft"},
            {"memory.soft_limit_in_bytes": "1073741824"},
            {"memory.high": "1073741824"},
        ),
        ({"limits.memory.swap": "false"}, {"memory.swappiness": "0"}, {"memory.swap.max": "0"}),
        ({"limits.processes": "50"}, {"pids.max": "50"}, {"pids.max": "50"}),
        ({"limits.cpu": "1"}, {"cpuset.cpus": "0"}, {"cpuset.cpus": "0"}),
        ({"limits.cpu.allowance": "50%"}, {"cpu.shares": "512"}, {"cpu.weight": "50"}),
        (
            {"limits.cpu.allowance": "25ms/200ms"},
            {"cpu.cfs_period_us": "200000", "cpu.cfs_quota_us": "25000"},
            {"cpu.max": "25000 200000"},
        ),
        ({}, {}, {}),
    ],
)
def test_limits_are_said_in_the_words_of_each_version(
    tmp_path: Path, config: dict[str, str], on_v1: dict[str, str], on_v2: dict[str, str]
) -> None:
    assert LinuxCgroups(tmp_path).plan(config) == on_v1
    (tmp_path / "cgroup.controllers").touch()
    assert LinuxCgroups(tmp_path).plan(config) == on_v2


def test_cpus_of_which_none_is_there_bound_nothing(v2: Path) -> None:
    """As with LXD: what was made on a larger host can be imported and started here."""
    cgroups = LinuxCgroups(v2)
    assert cgroups.plan({"limits.cpu": "9998-9999"}) == {}
    cgroups.apply(ID, {"limits.cpu": "9998-9999"})
    assert parse_spans((v2 / "podium" / ID / "cpuset.cpus").read_text()) == cgroups.cpus()


def test_a_live_change_reaches_every_file_of_v1_and_back(v1: Path) -> None:
    """The period belongs to the quota: with the old one, 25ms/200ms would be twice as much."""
    cgroups, cpu = LinuxCgroups(v1), v1 / "cpu/podium" / ID
    cgroups.apply(ID, {"limits.cpu.allowance": "25ms/200ms", "limits.memory.swap": "false"})
    assert (cpu / "cpu.cfs_period_us").read_text() == "200000"
    assert (cpu / "cpu.cfs_quota_us").read_text() == "25000"
    assert (v1 / "memory/podium" / ID / "memory.swappiness").read_text() == "0"
    cgroups.apply(ID, {})
    assert (cpu / "cpu.cfs_period_us").read_text() == "100000"
    assert (cpu / "cpu.cfs_quota_us").read_text() == "-1"
    assert (v1 / "memory/podium" / ID / "memory.swappiness").read_text() == "60"


def test_a_live_change_reaches_every_file_of_v2_and_back(v2: Path) -> None:
    cgroups, folder = LinuxCgroups(v2), v2 / "podium" / ID
    cgroups.apply(ID, {"limits.memory": "64MiB", "limits.memory.swap": "false", "limits.processes": "9"})
    assert (folder / "memory.max").read_text() == str(64 << 20)
    assert (folder / "memory.swap.max").read_text().strip() == "0"
    assert (folder / "pids.max").read_text() == "9"
    cgroups.apply(ID, {})
    assert {name: (folder / name).read_text() for name in V2_FILES[:4]} == dict.fromkeys(V2_FILES[:4], "max")
    assert (folder / "cpu.max").read_text() == "max 100000"


def test_figures_of_v2_are_in_bytes_and_nanoseconds(v2: Path) -> None:
    folder = v2 / "podium" / ID
    for name, text in {
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.max": "max\n",
        "memory.swap.current": "1\n",
        "cpu.stat": "usage_usec 7\nuser_usec 3\n",
        "pids.current": "12\n",
    }.items():
        (folder / name).write_text(text)
    usage = LinuxCgroups(v2).usage(ID)
    assert (usage.memory, usage.memory_peak, usage.swap, usage.cpu_ns) == (4096, 8192, 1, 7000)
    assert usage.processes == 12
    assert usage.memory_limit > 1 << 20, "no limit means all there is"


def test_freezing_an_instance_that_does_not_run_says_so(tmp_path: Path, v2: Path) -> None:
    with pytest.raises(NotFound):
        LinuxCgroups(v2).freeze("other/none")


def test_a_guest_may_nest_its_cgroups_as_deep_as_it_likes(tmp_path: Path) -> None:
    """Below a thousand levels Python gives up to recurse, and the instance could never be deleted."""
    top = tmp_path / "memory/podium/rogue"
    top.mkdir(parents=True)
    here = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=here)
        inner = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)

    LinuxCgroups(tmp_path).remove("rogue")

    assert not (top / "a").exists()
