"""Figures of running instances as samples, under the names and labels that LXD gave them.

What a figure is (its head) and the figure go apart: a message of its own for each sample costs more than
all that is read, and of a thousand instances most have the same heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from protos.podium.runtime.v1 import instance_pb2 as pb
from services.runtime.domain.health import HEALTHY
from services.runtime.ports import PoolSpace
from services.runtime.usecases.running.figures import Figures

# A name and further labels, as flat pairs.
Head = tuple[str, tuple[str, ...]]
Sample = tuple[Head, float]
_ROWS = {
    "active_anon": "Active_anon",
    "active_file": "Active_file",
    "inactive_anon": "Inactive_anon",
    "inactive_file": "Inactive_file",
    "unevictable": "Unevictable",
    "writeback": "Writeback",
    "dirty": "Dirty",
    "mapped": "Mapped",
    "rss": "RSS",
    "shmem": "Shmem",
    "cached": "Cached",
}
_SUMS = ("Active", "Inactive", "MemTotal", "MemFree", "MemAvailable", "Swap")
_MEMORY: tuple[Head, ...] = (
    *((f"memory_{name}_bytes", ()) for name in (*_ROWS.values(), *_SUMS)),
    ("memory_OOM_kills_total", ()),
)
_DISK = (
    *("disk_read_bytes_total", "disk_reads_completed_total"),
    *("disk_written_bytes_total", "disk_writes_completed_total"),
)
_SPACE = ("filesystem_size_bytes", "filesystem_free_bytes", "filesystem_avail_bytes")
_ROOT = ("device", "", "fstype", "overlay", "mountpoint", "/")
_NETWORK = {
    "network_receive_bytes_total": "bytes_received",
    "network_receive_packets_total": "packets_received",
    "network_receive_errs_total": "errors_received",
    "network_receive_drop_total": "packets_dropped_inbound",
    "network_transmit_bytes_total": "bytes_sent",
    "network_transmit_packets_total": "packets_sent",
    "network_transmit_errs_total": "errors_sent",
    "network_transmit_drop_total": "packets_dropped_outbound",
}


def message(found: Iterable[Figures], spaces: Mapping[str, PoolSpace]) -> pb.GetInstanceMetricsResponse:
    """Return the samples of all. spaces: of the pools that roots lie on, as far as they are open."""
    made, shapes = pb.GetInstanceMetricsResponse(), dict[tuple[Head, ...], int]()
    for figures in found:
        heads, values = zip(*_samples(figures, spaces.get(figures.instance.pool)), strict=True)
        made.instances.add(
            project=figures.instance.project,
            name=figures.instance.name,
            shape=shapes.setdefault(heads, len(shapes)),
            values=values,
        )
    for heads in shapes:
        made.shapes.add(heads=[pb.MetricHead(name=name, labels=labels) for name, labels in heads])
    return made


def _samples(figures: Figures, space: PoolSpace | None) -> Iterator[Sample]:
    yield from _cpu(figures)
    yield from zip(_MEMORY, _memory(figures), strict=True)
    yield from _disk(figures, space)
    yield from _network(figures)
    yield from _life(figures)
    yield ("procs_total", ()), figures.usage.processes


def _cpu(figures: Figures) -> Iterator[Sample]:
    for cpu, (user, system) in enumerate(figures.usage.details.cpus):
        yield _heads(("cpu_seconds_total",), ("cpu", str(cpu), "mode", "system"))[0], system / 1e9
        yield _heads(("cpu_seconds_total",), ("cpu", str(cpu), "mode", "user"))[0], user / 1e9


def _memory(figures: Figures) -> list[float]:
    """Return the figures of _MEMORY, in its order."""
    usage = figures.usage
    rows = usage.details.memory
    free = max(0, usage.memory_limit - usage.memory)
    return [
        *(rows.get(name, 0) for name in _ROWS),
        rows.get("active_anon", 0) + rows.get("active_file", 0),
        rows.get("inactive_anon", 0) + rows.get("inactive_file", 0),
        usage.memory_limit,
        free,
        min(usage.memory_limit, free + rows.get("cached", 0)),
        usage.swap,
        usage.details.oom_kills,
    ]


def _disk(figures: Figures, space: PoolSpace | None) -> Iterator[Sample]:
    for device, disk in figures.usage.details.disks.items():
        counted = (disk.read_bytes, disk.reads, disk.written_bytes, disk.writes)
        yield from zip(_heads(_DISK, ("device", device)), counted, strict=True)
    if space:
        free = space.total - space.used
        yield from zip(_heads(_SPACE, _ROOT), (space.total, free, free), strict=True)


def _network(figures: Figures) -> Iterator[Sample]:
    for found in figures.interfaces:
        counted = [found.counters.get(counter, 0) for counter in _NETWORK.values()]
        yield from zip(_heads(tuple(_NETWORK), ("device", found.name)), counted, strict=True)


def _life(figures: Figures) -> Iterator[Sample]:
    """Restarts in a row, and health of what is checked: 1 while it is well."""
    if figures.observed.restarts:
        yield ("restarts", ()), figures.observed.restarts
    if figures.observed.health:
        yield ("healthy", ()), figures.observed.health == HEALTHY


@lru_cache(1024)
def _heads(names: tuple[str, ...], labels: tuple[str, ...]) -> tuple[Head, ...]:
    return tuple((name, labels) for name in names)
