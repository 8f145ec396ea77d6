"""What is measured, in which unit, and against which bar.

A case yields one or more rows per round; both sides run the same code through the same client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import archives, copying, lifecycle, listing, memory, network, transfer
from bench.client import Side
from bench.plan import Plan


@dataclass(frozen=True)
class Row:
    """One line of the table. *ratio* bars Podium's value over LXD's, *limit* Podium's value itself."""

    key: str
    title: str
    unit: str
    ratio: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Case:
    """`measure` answers {row key: value}; `prepare` and `clean` run once per side around all rounds."""

    name: str
    rows: tuple[Row, ...]
    measure: Callable[[Side, Plan], dict[str, float]]
    prepare: Callable[[Side, Plan], None] = lambda side, plan: None
    most_rounds: int = 100


def _list_rows() -> tuple[Row, ...]:
    return tuple(
        Row(f"list_{count}_{depth}", f"list, {count} stopped, recursion={depth}", "ms")
        for count in listing.COUNTS
        for depth in (0, 1, 2)
    )


CASES: tuple[Case, ...] = (
    Case(
        "import",
        (
            Row("first_launch", "first launch after import", "ms", ratio=0.1),
            Row("import_launch", "import + first launch", "ms", ratio=0.5),
            Row("image_import", "image import", "MB/s"),
            Row("image_export", "image export", "MB/s"),
        ),
        transfer.import_and_launch,
        most_rounds=3,
    ),
    Case(
        "life",
        (
            Row("init_start", "warm init + start", "ms", ratio=0.15),
            Row("exec", "exec of true", "ms", ratio=1.0),
            Row("stop", "stop --force", "ms", ratio=0.3),
            Row("delete", "delete", "ms", ratio=1.0),
        ),
        lifecycle.one_life,
        lifecycle.warm_up,
    ),
    Case(
        "parallel",
        (Row("parallel", "launches at once (wall time)", "ms", ratio=0.15),),
        lifecycle.launch_together,
        lifecycle.warm_up,
        most_rounds=3,
    ),
    Case(
        "copies",
        (
            Row("snapshot", "snapshot", "ms", ratio=0.5),
            Row("restore", "restore", "ms", ratio=0.5),
            Row("copy", "copy", "ms", ratio=0.5),
        ),
        copying.one_copy,
        copying.make_source,
    ),
    Case(
        "archives",
        (
            Row("publish", "publish", "ms", ratio=0.5),
            Row("backup_export", "backup and export", "ms", ratio=1.0),
            Row("backup_rate", "backup and export", "MB/s"),
            Row("backup_import", "import of a backup", "ms"),
        ),
        archives.one_round,
        archives.make_source,
        most_rounds=3,
    ),
    Case(
        "network",
        (
            Row("network_create", "network create", "ms", ratio=0.5),
            Row("attach", "attach of a NIC to a running instance", "ms", ratio=0.3),
            Row("attach_api", "the same, by the API alone", "ms", ratio=0.3),
            Row("detach", "detach of a NIC from a running instance", "ms"),
            Row("network_delete", "network delete", "ms", ratio=0.5),
        ),
        network.one_network,
        network.start_guest,
    ),
    Case("rps", (Row("rps", "GET /1.0, one connection", "requests/s"),), listing.requests_per_second),
    Case(
        "file",
        (Row("push", "file push", "MB/s"), Row("pull", "file pull", "MB/s")),
        transfer.push_and_pull,
        transfer.start_one,
    ),
    Case(
        "stdout",
        (Row("exec_gibibyte", "1 GiB through exec", "ms", ratio=1.0),),
        transfer.exec_gibibyte,
        transfer.start_one,
    ),
    Case(
        "memory",
        (
            Row("control_pss", "control plane, PSS (services and gateway / lxd)", "MiB", limit=280),
            Row("control_rss", "control plane, RSS (services and gateway / lxd)", "MiB", limit=280),
            Row("store_pss", "store beside it, PSS (etcd / none)", "MiB"),
            Row("per_container", "per running container beyond its own processes, PSS", "MiB", limit=3),
        ),
        memory.footprint,
        memory.start_some,
        most_rounds=1,
    ),
    Case("list", _list_rows(), listing.stopped_lists, most_rounds=1),
    Case(
        "running",
        (Row("list_running", "list recursion=2, all running", "ms", ratio=0.2),),
        listing.running_list,
        listing.start_running,
    ),
)
