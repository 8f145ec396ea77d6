"""Memory and huge pages, altogether and by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.hardware.files import Host, entries, fields, text

Json = dict[str, Any]


def read(host: Host) -> Json:
    whole = fields(host.proc / "meminfo")
    total = _bytes(whole, "MemTotal")
    used = total - _bytes(whole, "MemAvailable")
    page = _bytes(whole, "Hugepagesize")
    nodes = [
        _node(host, folder, page)
        for folder in entries(host.sys / "devices/system/node")
        if folder.name.startswith("node") and folder.name[4:].isdecimal()
    ]
    pages = _pages(whole, page)
    total = _installed(host, host.sys / "devices/system/memory") or total
    return {
        "nodes": nodes or [{"numa_node": 0, **pages, "used": used, "total": total}],
        **pages,
        "hugepages_size": page,
        "used": used,
        "total": total,
    }


def _installed(host: Host, folder: Path) -> int:
    """Return what is plugged in, of which the kernel keeps a part for itself; 0 when it does not say."""
    size = int(text(host.sys / "devices/system/memory/block_size_bytes") or "0", 16)
    blocks = (p for p in entries(folder) if p.name.startswith("memory") and text(p / "online") == "1")
    return size * sum(1 for _ in blocks)


def _node(host: Host, folder: Path, page: int) -> Json:
    id = int(folder.name[4:])
    prefix = f"Node {id} "
    found = {name.removeprefix(prefix): value for name, value in fields(folder / "meminfo").items()}
    total = _bytes(found, "MemTotal")
    kept = _bytes(found, "MemFree") + _bytes(found, "FilePages") + _bytes(found, "SReclaimable")
    installed = _installed(host, folder) or total
    return {"numa_node": id, **_pages(found, page), "used": max(total - kept, 0), "total": installed}


def _pages(found: dict[str, str], page: int) -> Json:
    total, free = (int(found.get(f"HugePages_{n}", "0").split()[0]) for n in ("Total", "Free"))
    return {"hugepages_used": (total - free) * page, "hugepages_total": total * page}


def _bytes(found: dict[str, str], name: str) -> int:
    return int(found.get(name, "0 kB").split()[0]) * 1024
