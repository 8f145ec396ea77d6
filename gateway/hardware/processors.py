"""Sockets, cores and threads, their caches and frequencies."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.hardware.files import Host, entries, number, text

Json = dict[str, Any]
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read(host: Host) -> Json:
    processors = _cpuinfo(host.proc / "cpuinfo")
    isolated = _numbers(text(host.sys / "devices/system/cpu/isolated"))
    sockets: dict[int, list[tuple[int, Path]]] = {}
    for folder in entries(host.sys / "devices/system/cpu"):
        if (n := folder.name.removeprefix("cpu")).isdecimal():
            sockets.setdefault(max(number(folder / "topology/physical_package_id"), 0), []).append(
                (int(n), folder)
            )
    shown = [_socket(id, cpus, processors, isolated) for id, cpus in sorted(sockets.items())]
    total = sum(len(cpus) for cpus in sockets.values())
    return {"architecture": platform.machine(), "sockets": shown, "total": total}


def _socket(
    id: int, cpus: list[tuple[int, Path]], processors: dict[int, dict[str, str]], isolated: set[int]
) -> Json:
    first = processors.get(cpus[0][0], {})
    shown: Json = {
        "name": first.get("model name", ""),
        "vendor": first.get("vendor_id", ""),
        "socket": id,
        "cache": _caches(cpus[0][1]),
        "cores": _cores(cpus, isolated),
    }
    frequencies = [c["frequency"] for c in shown["cores"] if c.get("frequency")]
    more = {
        "frequency": sum(frequencies) // len(frequencies) if frequencies else 0,
        "frequency_minimum": number(cpus[0][1] / "cpufreq/cpuinfo_min_freq") // 1000,
        "frequency_turbo": number(cpus[0][1] / "cpufreq/cpuinfo_max_freq") // 1000,
    }
    return shown | {name: value for name, value in more.items() if value}


def _cores(cpus: list[tuple[int, Path]], isolated: set[int]) -> list[Json]:
    found: dict[tuple[int, int], Json] = {}
    for n, folder in cpus:
        die = max(number(folder / "topology/die_id"), 0)
        key = (die, number(folder / "topology/core_id", n))
        core = found.setdefault(key, {"core": key[1], "die": die, "threads": []})
        node = next(
            (p.name[4:] for p in entries(folder) if p.name[4:].isdecimal() and p.name[:4] == "node"), 0
        )
        core["threads"].append(
            {
                "id": n,
                "numa_node": int(node),
                "thread": len(core["threads"]),
                "online": number(folder / "online", 1) == 1,
                "isolated": n in isolated,
            }
        )
        if mhz := number(folder / "cpufreq/scaling_cur_freq") // 1000:
            core["frequency"] = mhz
    return [core for _, core in sorted(found.items())]


def _caches(cpu: Path) -> list[Json]:
    found = []
    for folder in entries(cpu / "cache"):
        if folder.name.startswith("index"):
            size = text(folder / "size")
            amount = int(size.rstrip("KMG") or 0) * _UNITS.get(size[-1:], 1)
            found.append({"level": number(folder / "level"), "type": text(folder / "type"), "size": amount})
    return found


def _cpuinfo(path: Path) -> dict[int, dict[str, str]]:
    """Return the lines about each processor, by its number."""
    return {
        int(block["processor"]): block for block in _blocks(path) if block.get("processor", "").isdecimal()
    }


def _blocks(path: Path) -> Iterator[dict[str, str]]:
    for block in text(path).split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        yield {name.strip(): value.strip() for name, _, value in pairs}


def _numbers(listed: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, listed.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
