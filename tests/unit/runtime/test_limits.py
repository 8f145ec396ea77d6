"""limits.* as cgroup files, and who gets which CPUs."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from services.runtime.domain.limits import (
    Facts,
    balance,
    count_of,
    parse_spans,
    plan,
    spans,
    unlimited,
)
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.running.balance import Balance
from tests.unit.runtime.conftest import MEMBER, World

CPUS = frozenset(range(4))
V1 = Facts(False, 1 << 30, CPUS, disk_weight="blkio.bfq.weight", hugepages=frozenset({"2MB"}))
V2 = replace(V1, is_v2=True, disk_weight="io.weight")


@pytest.mark.parametrize(
    ("config", "on_v1", "on_v2"),
    [
        ({"limits.memory": "50%"}, {"memory.limit_in_bytes": str(1 << 29)}, {"memory.max": str(1 << 29)}),
        ({"limits.memory.swap.priority": "4"}, {"memory.swappiness": "66"}, {}),
        (
            {"limits.memory.swap": "no", "limits.memory.swap.priority": "4"},
            {"memory.swappiness": "0"},
            {"memory.swap.max": "0"},
        ),
        ({"limits.cpu": "0-1,3"}, {"cpuset.cpus": "0-1,3"}, {"cpuset.cpus": "0-1,3"}),
        ({"limits.cpu": "3-900"}, {"cpuset.cpus": "3"}, {"cpuset.cpus": "3"}),
        ({"limits.cpu": "99"}, {"cpuset.cpus": "0-3"}, {"cpuset.cpus": "0-3"}),
        ({"limits.cpu.allowance": "150%"}, {"cpu.shares": "1536"}, {"cpu.weight": "150"}),
        ({"limits.cpu.allowance": "0%"}, {"cpu.shares": "2"}, {"cpu.weight": "1"}),
        ({"limits.cpu.priority": "5"}, {"cpu.shares": "1019"}, {"cpu.weight": "99"}),
        (
            {"limits.cpu.allowance": "50%", "limits.cpu.priority": "0"},
            {"cpu.shares": "502"},
            {"cpu.weight": "49"},
        ),
        (
            {"limits.cpu.allowance": "20ms/50ms", "limits.cpu.priority": "0"},
            {"cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "20000", "cpu.shares": "1014"},
            {"cpu.max": "20000 50000", "cpu.weight": "99"},
        ),
        ({"limits.disk.priority": "0"}, {"blkio.bfq.weight": "10"}, {"io.weight": "10"}),
        ({"limits.disk.priority": "10"}, {"blkio.bfq.weight": "1000"}, {"io.weight": "1000"}),
        (
            {"limits.hugepages.2MB": "64MB", "limits.hugepages.1GB": "1GB"},
            {"hugetlb.2MB.limit_in_bytes": "64000000"},
            {"hugetlb.2MB.max": "64000000"},
        ),
    ],
)
def test_limits_become_files(config: dict[str, str], on_v1: dict[str, str], on_v2: dict[str, str]) -> None:
    assert plan(config, V1) == on_v1
    assert plan(config, V2) == on_v2


def test_every_file_of_a_plan_can_be_taken_back() -> None:
    """A live change writes what is not asked for any more as unlimited, so each file must be listed."""
    config = {
        "limits.memory": "1GiB",
        "limits.memory.swap": "false",
        "limits.cpu": "1",
        "limits.cpu.allowance": "10ms/20ms",
        "limits.cpu.priority": "1",
        "limits.disk.priority": "1",
        "limits.hugepages.2MB": "2MB",
        "limits.processes": "5",
    }
    for facts in (V1, V2):
        for enforce in ("soft", "hard"):
            assert plan({**config, "limits.memory.enforce": enforce}, facts).keys() <= unlimited(facts).keys()


def test_without_weights_of_disks_the_key_is_refused_as_lxd_refuses_it() -> None:
    with pytest.raises(Invalid, match=r"Cannot apply limits\.disk\.priority as blkio\.weight"):
        plan({"limits.disk.priority": "5"}, replace(V1, disk_weight=""))


def test_instances_get_the_cpus_that_the_fewest_have() -> None:
    assert balance(CPUS, [frozenset({0, 1})], {"a": 1, "b": 2}) == {
        "a": frozenset({2}),
        "b": frozenset({0, 3}),
    }


def test_more_cpus_than_there_are_means_all() -> None:
    assert balance(CPUS, [], {"a": 100}) == {"a": CPUS}


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 4), max_size=12))
def test_no_cpu_is_used_by_two_more_than_another(counts: dict[str, int]) -> None:
    """That is what balanced means; and each has what it asked for."""
    found = balance(CPUS, [], counts)
    assert {id: len(cpus) for id, cpus in found.items()} == counts
    users = Counter(cpu for cpus in found.values() for cpu in cpus)
    assert max(users.values(), default=0) - min((users[cpu] for cpu in CPUS), default=0) <= 1


@given(st.frozensets(st.integers(0, 300)))
def test_sets_are_written_as_the_kernel_reads_them(cpus: frozenset[int]) -> None:
    assert parse_spans(spans(cpus)) == cpus


def test_a_number_is_told_from_a_set() -> None:
    assert count_of({"limits.cpu": "2"}) == 2
    assert count_of({"limits.cpu": "2-2"}) == 0
    assert count_of({}) == 0


async def test_running_instances_are_spread_as_they_come_and_change(world: World) -> None:
    """Two that asked for one CPU each must not sit on the same while others are idle."""
    await world.made("a")
    await world.made("b")
    one = Update(config={"limits.cpu": "1"}, merge=True)
    for name in ("a", "b"):
        await world.done(await world.changes.update("default", name, one, expected_revision=0))
    balancer = Balance(world.host, MEMBER)
    await balancer.start()
    for name in ("a", "b"):
        await world.changed("start", name)
    given = world.host.cgroups.given  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while len(given) < 2:
            await asyncio.sleep(0.02)
    assert sorted(given.values(), key=sorted) == [frozenset({0}), frozenset({1})]
    await balancer.stop()
