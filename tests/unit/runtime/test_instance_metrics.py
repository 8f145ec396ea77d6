"""Figures from cgroup files of both versions, as the samples that LXD's dashboards ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.records import Instance, InstanceObserved
from gateway.lxd.views.metrics import metrics_text
from services.runtime.kernel import usage
from services.runtime.ports import DiskUsage, GuestInterface, PoolSpace, Usage, UsageDetails
from services.runtime.servicer import metrics
from services.runtime.usecases.running.figures import Figures

GROUP = "podium/x"
MEMORY = (
    *("Active_anon", "Active_file", "Active", "Inactive_anon", "Inactive_file", "Inactive", "Unevictable"),
    *(
        "Writeback",
        "Dirty",
        "Mapped",
        "RSS",
        "Shmem",
        "Cached",
        "MemTotal",
        "MemFree",
        "MemAvailable",
        "Swap",
    ),
)
FIGURES = ("bytes", "packets", "errs", "drop")
NETWORK = [f"{way}_{figure}" for way in ("receive", "transmit") for figure in FIGURES]
LXD_NAMES = {
    "cpu_seconds_total", "procs_total", "memory_OOM_kills_total",
    "disk_read_bytes_total", "disk_reads_completed_total",
    "disk_written_bytes_total", "disk_writes_completed_total",
    "filesystem_avail_bytes", "filesystem_free_bytes", "filesystem_size_bytes",
    *(f"memory_{name}_bytes" for name in MEMORY), *(f"network_{name}_total" for name in NETWORK),
}  # fmt: skip


def _figures() -> Figures:
    details = UsageDetails(((1, 2), (3, 4)), {"cached": 10, "rss": 5}, 1, {"loop0": DiskUsage(1, 2, 3, 4)})
    used = Usage(memory=60, memory_limit=100, processes=7, details=details)
    nic = GuestInterface("eth0", (), {"bytes_received": 9})
    web = Instance(project="default", name="web", pool="default")
    return Figures(web, InstanceObserved(id="x"), used, (nic,))


def _told(space: PoolSpace | None = None) -> dict[str, float]:
    """Return the figures by name; of a name with several, the last."""
    told = metrics.message([_figures()], {"default": space} if space else {})
    (shape,), (instance,) = told.shapes, told.instances
    return {head.name: value for head, value in zip(shape.heads, instance.values, strict=True)}


def test_every_name_that_lxd_gives_a_container_is_there() -> None:
    assert set(_told(PoolSpace(used=1, total=3))) == LXD_NAMES


def test_available_memory_is_what_is_free_and_what_could_be() -> None:
    found = _told()
    assert found["memory_MemFree_bytes"] == 40
    assert found["memory_MemAvailable_bytes"] == 50


def test_what_many_have_in_common_is_told_once() -> None:
    """Each keeps its own figures, also one that has more of them than the others."""
    web, more = _figures(), replace(_figures(), instance=Instance(project="default", name="more"))
    more = replace(more, observed=InstanceObserved(id="y", restarts=3))

    told = metrics.message([web, more, web], {})

    assert len(told.shapes) == 2
    assert [instance.shape for instance in told.instances] == [0, 1, 0]
    text = metrics_text(told)
    assert text.count('lxd_procs_total{name="web"') == 2
    assert text.count("lxd_restarts{") == 1
    assert 'lxd_restarts{name="more",project="default",type="container"} 3\n' in text


def test_nothing_that_runs_is_no_samples() -> None:
    assert metrics_text(metrics.message([], {})) == "# EOF\n"


def test_the_text_has_sorted_labels_and_all_digits() -> None:
    text = metrics_text(metrics.message([_figures()], {"default": PoolSpace(used=1, total=25276063744)}))
    own = 'name="web",project="default",type="container"'
    assert f'lxd_filesystem_size_bytes{{device="",fstype="overlay",mountpoint="/",{own}}} 25276063744' in text
    assert f'lxd_cpu_seconds_total{{cpu="1",mode="user",{own}}} 3e-09' in text
    assert "# TYPE lxd_procs_total gauge\n" in text and "# TYPE lxd_memory_OOM_kills_total counter\n" in text
    assert text.endswith("# EOF\n")


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_1_counts_descendants(tmp_path: Path) -> None:
    root = _write(tmp_path, {
        f"memory/{GROUP}/memory.usage_in_bytes": "100\n",
        f"memory/{GROUP}/memory.stat": "cache 1\nhierarchical_memory_limit 9223372036854771712\n"
        "total_cache 20\ntotal_mapped_file 3\ntotal_swap 30\n",
        f"memory/{GROUP}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        f"cpuacct/{GROUP}/cpuacct.usage_all": "cpu user system\n0 10 20\n1 30 40\n",
        f"blkio/{GROUP}/blkio.throttle.io_service_bytes_recursive": "259:9 Read 512\n259:9 Write 7\n",
    })  # fmt: skip
    found = usage.details_v1(root, GROUP, total=1000)
    assert (found.memory, found.swap, found.memory_limit) == (100, 30, 1000)
    assert found.details.cpus == ((10, 20), (30, 40))
    assert (found.details.memory["cached"], found.details.memory["mapped"]) == (20, 3)
    assert found.details.oom_kills == 2
    assert [(d.read_bytes, d.written_bytes) for d in found.details.disks.values()] == [(512, 7)]


def test_version_2_says_the_same_in_the_same_words(tmp_path: Path) -> None:
    root = _write(tmp_path, {
        f"{GROUP}/memory.current": "100\n", f"{GROUP}/memory.max": "max\n", f"{GROUP}/pids.current": "3\n",
        f"{GROUP}/cpu.stat": "usage_usec 30\nuser_usec 10\nsystem_usec 20\n",
        f"{GROUP}/memory.stat": "anon 5\nfile 20\nfile_mapped 3\n",
        f"{GROUP}/io.stat": "259:9 rbytes=512 wbytes=7 rios=1 wios=2 dbytes=0 dios=0\n",
    })  # fmt: skip
    found = usage.details_v2(root, GROUP, total=1000)
    assert (found.memory, found.memory_limit, found.processes) == (100, 1000, 3)
    assert found.details.cpus == ((10_000, 20_000),)
    assert (found.details.memory["cached"], found.details.memory["rss"]) == (20, 5)
    assert list(found.details.disks.values()) == [DiskUsage(512, 1, 7, 2)]


def test_files_that_are_gone_read_as_zero(tmp_path: Path) -> None:
    for read in (usage.read_v1, usage.read_v2, usage.details_v1, usage.details_v2):
        assert read(tmp_path, GROUP, total=1000).memory == 0
