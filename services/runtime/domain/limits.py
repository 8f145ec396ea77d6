"""limits.* keys in the words of cgroup v1 and v2, and who gets which CPUs. Pure.

Huge pages of a size that the host does not count are left out of the plan, as with LXD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from core.configkeys.instance import INSTANCE
from core.errors import Invalid
from core.units import parse_allowance, parse_bool, parse_bytes, parse_cpus, parse_int, parse_memory

_PERIOD_US = 100_000
_SHARES = 1024
_HIGHEST = 10
HUGEPAGES = ("64KB", "1MB", "2MB", "1GB")
_NO_WEIGHT = "Initialize LXC: Cannot apply limits.disk.priority as blkio.weight cgroup controller is missing"


@dataclass(frozen=True)
class Facts:
    """What the host's cgroups offer. disk_weight: the file for limits.disk.priority, "" for none."""

    is_v2: bool
    total_bytes: int
    cpus: frozenset[int]
    swappiness: int = 60
    disk_weight: str = ""
    hugepages: frozenset[str] = frozenset()


def plan(config: Mapping[str, str], facts: Facts, *, had: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return files (controller.file) and values, in the order in which they may be written.

    *had*: the configuration that this one follows. What was impossible there already is left out.

    Raises: Invalid for what this host cannot do at all.
    """
    files: dict[str, str] = {}
    for part in (_memory, _swap, _tasks, _cpuset, _cpu, _disk, _huge):
        try:
            files |= part(config, facts)
        except Invalid as exc:
            if had is None or exc.message != _refusal(part, had, facts):
                raise
    return files


def _refusal(
    part: Callable[[Mapping[str, str], Facts], object], config: Mapping[str, str], facts: Facts
) -> str:
    try:
        part(config, facts)
    except Invalid as exc:
        return exc.message
    return ""


def unlimited(facts: Facts) -> dict[str, str]:
    """Return what each file of a plan says without a limit."""
    if facts.is_v2:
        files = {
            "memory.max": "max",
            "memory.high": "max",
            "memory.swap.max": "max",
            "pids.max": "max",
            "cpuset.cpus": spans(facts.cpus),
            "cpu.max": f"max {_PERIOD_US}",
            "cpu.weight": "100",
        }
    else:
        files = {
            "memory.limit_in_bytes": "-1",
            "memory.soft_limit_in_bytes": "-1",
            "memory.swappiness": str(facts.swappiness),
            "pids.max": "max",
            "cpuset.cpus": spans(facts.cpus),
            "cpu.cfs_period_us": str(_PERIOD_US),
            "cpu.cfs_quota_us": "-1",
            "cpu.shares": str(_SHARES),
        }
    if facts.disk_weight:
        files[facts.disk_weight] = "100"
    for size in sorted(facts.hugepages):
        files[_huge_file(size, facts)] = "max" if facts.is_v2 else "-1"
    return files


def count_of(config: Mapping[str, str]) -> int:
    """Return how many CPUs were asked for by number; 0 for a set, or none."""
    found = parse_cpus(config["limits.cpu"]) if config.get("limits.cpu") else 0
    return found if isinstance(found, int) else 0


def balance(
    cpus: frozenset[int], pinned: Iterable[frozenset[int]], counts: Mapping[str, int]
) -> dict[str, frozenset[int]]:
    """Return the CPUs of each instance that asked for a number: those that the fewest others have.

    The same instances always give the same answer, so nobody needs to remember who was where.
    """
    users = dict.fromkeys(sorted(cpus), 0)
    for wanted in pinned:
        for cpu in wanted & cpus:
            users[cpu] += 1
    found = {}
    for id, count in sorted(counts.items()):
        chosen = sorted(users, key=lambda cpu: (users[cpu], cpu))[:count]
        for cpu in chosen:
            users[cpu] += 1
        found[id] = frozenset(chosen)
    return found


def spans(cpus: Iterable[int]) -> str:
    """Return a set as the kernel writes it: "0-2,5"."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def parse_spans(text: str) -> frozenset[int]:
    """Return the set that the kernel wrote as "0-2,5"."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _memory(config: Mapping[str, str], facts: Facts) -> dict[str, str]:
    if not (value := config.get("limits.memory")):
        return {}
    size = str(parse_memory(value, total_bytes=facts.total_bytes))
    is_soft = INSTANCE.get(config, "limits.memory.enforce") == "soft"
    if facts.is_v2:
        return {"memory.high" if is_soft else "memory.max": size}
    return {"memory.soft_limit_in_bytes" if is_soft else "memory.limit_in_bytes": size}


def _swap(config: Mapping[str, str], facts: Facts) -> dict[str, str]:
    if not parse_bool(INSTANCE.get(config, "limits.memory.swap")):
        return {"memory.swap.max": "0"} if facts.is_v2 else {"memory.swappiness": "0"}
    if facts.is_v2 or not (priority := config.get("limits.memory.swap.priority")):
        return {}
    return {"memory.swappiness": str(facts.swappiness + _HIGHEST - parse_int(priority))}


def _tasks(config: Mapping[str, str], facts: Facts) -> dict[str, str]:
    value = config.get("limits.processes")
    return {"pids.max": str(parse_int(value))} if value else {}


def _cpuset(config: Mapping[str, str], facts: Facts) -> dict[str, str]:
    """A number begins with the first ones; balance() moves it once the instance is seen to run.

    A set of which this host has none bounds nothing, as with LXD: what comes from a larger host must start.
    """
    if not (value := config.get("limits.cpu")):
        return {}
    wanted = parse_cpus(value)
    if isinstance(wanted, int):
        return {"cpuset.cpus": spans(sorted(facts.cpus)[:wanted])}
    there = wanted & facts.cpus
    return {"cpuset.cpus": spans(there)} if there else {}


def _cpu(config: Mapping[str, str], facts: Facts) -> dict[str, str]:
    allowance, priority = config.get("limits.cpu.allowance"), config.get("limits.cpu.priority")
    share = parse_allowance(allowance) if allowance else 100
    files: dict[str, str] = {}
    if not isinstance(share, int):
        quota, period = share[0] * 1000, share[1] * 1000
        if facts.is_v2:
            files["cpu.max"] = f"{quota} {period}"
        else:
            files |= {"cpu.cfs_period_us": str(period), "cpu.cfs_quota_us": str(quota)}
        share = 100
    if share != 100 or priority:
        weight = _SHARES * share // 100 - (_HIGHEST - parse_int(priority or str(_HIGHEST)))
        files |= _weight(weight, facts)
    return files


def _weight(shares: int, facts: Facts) -> dict[str, str]:
    """The least that the kernel takes: 1 on v2, 2 on v1."""
    if facts.is_v2:
        return {"cpu.weight": str(max(1, min(shares * 100 // _SHARES, 10_000)))}
    return {"cpu.shares": str(max(2, shares))}


def _disk(config: Mapping[str, str], facts: Facts) -> dict[str, str]:
    if not (value := config.get("limits.disk.priority")):
        return {}
    if not facts.disk_weight:
        raise Invalid("NO_DISK_WEIGHT", _NO_WEIGHT, about="limits.disk.priority")
    return {facts.disk_weight: str(parse_int(value) * 100 or 10)}


def _huge(config: Mapping[str, str], facts: Facts) -> dict[str, str]:
    sizes = [size for size in HUGEPAGES if size in facts.hugepages and config.get(f"limits.hugepages.{size}")]
    return {_huge_file(size, facts): str(parse_bytes(config[f"limits.hugepages.{size}"])) for size in sizes}


def _huge_file(size: str, facts: Facts) -> str:
    return f"hugetlb.{size}.max" if facts.is_v2 else f"hugetlb.{size}.limit_in_bytes"
