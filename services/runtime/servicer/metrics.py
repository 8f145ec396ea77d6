"""Figures of a running instance as samples, under the names and labels that LXD gave them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from protos.podium.runtime.v1 import instance_pb2 as pb
from services.runtime.domain.health import HEALTHY
from services.runtime.ports import PoolSpace
from services.runtime.usecases.running.figures import Figures

Sample = tuple[str, float, tuple[str, ...]]
_MEMORY = {
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


def message(figures: Figures, space: PoolSpace | None) -> pb.InstanceMetrics:
    """Return the samples. space: of the pool that its root lies on, None when it is not open."""
    made = pb.InstanceMetrics(project=figures.instance.project, name=figures.instance.name)
    families = (_cpu(figures), _memory(figures), _disk(figures, space), _network(figures), _life(figures))
    for name, value, labels in chain(*families):
        made.samples.add(name=name, value=value, labels=labels)
    made.samples.add(name="procs_total", value=figures.usage.processes)
    return made


def _cpu(figures: Figures) -> Iterator[Sample]:
    for cpu, (user, system) in enumerate(figures.usage.details.cpus):
        yield "cpu_seconds_total", system / 1e9, ("cpu", str(cpu), "mode", "system")
        yield "cpu_seconds_total", user / 1e9, ("cpu", str(cpu), "mode", "user")


def _memory(figures: Figures) -> Iterator[Sample]:
    usage = figures.usage
    rows = usage.details.memory
    free = max(0, usage.memory_limit - usage.memory)
    figures_of = {name: rows.get(ours, 0) for ours, name in _MEMORY.items()}
    figures_of["Active"] = rows.get("active_anon", 0) + rows.get("active_file", 0)
    figures_of["Inactive"] = rows.get("inactive_anon", 0) + rows.get("inactive_file", 0)
    figures_of["MemTotal"] = usage.memory_limit
    figures_of["MemFree"] = free
    figures_of["MemAvailable"] = min(usage.memory_limit, free + rows.get("cached", 0))
    figures_of["Swap"] = usage.swap
    for name, value in figures_of.items():
        yield f"memory_{name}_bytes", value, ()
    yield "memory_OOM_kills_total", usage.details.oom_kills, ()


def _disk(figures: Figures, space: PoolSpace | None) -> Iterator[Sample]:
    for device, disk in figures.usage.details.disks.items():
        yield "disk_read_bytes_total", disk.read_bytes, ("device", device)
        yield "disk_reads_completed_total", disk.reads, ("device", device)
        yield "disk_written_bytes_total", disk.written_bytes, ("device", device)
        yield "disk_writes_completed_total", disk.writes, ("device", device)
    if space:
        labels = ("device", "", "fstype", "overlay", "mountpoint", "/")
        yield "filesystem_size_bytes", space.total, labels
        yield "filesystem_free_bytes", space.total - space.used, labels
        yield "filesystem_avail_bytes", space.total - space.used, labels


def _network(figures: Figures) -> Iterator[Sample]:
    for found in figures.interfaces:
        for name, counter in _NETWORK.items():
            yield name, found.counters.get(counter, 0), ("device", found.name)


def _life(figures: Figures) -> Iterator[Sample]:
    """Restarts in a row, and health of what is checked: 1 while it is well."""
    if figures.observed.restarts:
        yield "restarts", figures.observed.restarts, ()
    if figures.observed.health:
        yield "healthy", figures.observed.health == HEALTHY, ()
