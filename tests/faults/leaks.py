"""What a Podium holds on its host, as named sets, so that two moments can be compared.

A test takes a `Snapshot` before and after; `leaked(before, after)` names what was left behind.
Pure apart from `take`, which only reads.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import run

LINKS = r"veth[0-9a-f]{8}|podium.*"
TABLES = r"podium_.*"
# Finished operations and sent events stay a while by design; lapsed claims go with their lease.
PASSING_KEYS = ("operations/", "events/", "claims/")


@dataclass(frozen=True)
class Scope:
    """Which Podium to look at. *links* and *tables* are patterns of whole names."""

    state_dir: Path
    etcd: str = "127.0.0.1:23790"
    prefix: str = "/podium/v1/"
    links: str = LINKS
    tables: str = TABLES
    cgroup_parents: tuple[str, ...] = ("podium", "podium.monitor")


@dataclass(frozen=True)
class Snapshot:
    """Kind of thing -> names of the things of that kind."""

    found: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, kind: str) -> frozenset[str]:
        return self.found.get(kind, frozenset())


def leaked(before: Snapshot, after: Snapshot) -> list[str]:
    """Things of *after* that *before* had not, as 'kind: name', sorted."""
    kinds = sorted(after.found)
    return [f"{kind}: {name}" for kind in kinds for name in sorted(after.of(kind) - before.of(kind))]


def lost(before: Snapshot, after: Snapshot) -> list[str]:
    """Things that went away in between; a fault must not take what it does not own."""
    return leaked(after, before)


def take(scope: Scope) -> Snapshot:
    """Look at the host now. Kinds that cannot be read (etcd is down) raise: silence is no proof."""
    state = scope.state_dir.resolve()
    return Snapshot(
        {
            "mount": frozenset(mount_points(Path("/proc/self/mountinfo").read_text(), state)),
            "link": frozenset(_links(scope.links)),
            "cgroup": frozenset(_cgroups(scope.cgroup_parents)),
            "nft table": frozenset(_tables(scope.tables)),
            "loop device": frozenset(_loops(state)),
            "dnsmasq": frozenset(_processes(state, "dnsmasq")),
            "monitor": frozenset(_processes(state, "[lxc monitor]", "lxc-start")),
            "file": frozenset(_files(state)),
            "lease": frozenset(_leases(state)),
            "etcd key": frozenset(lasting_keys(_keys(scope), scope.prefix)),
        }
    )


def mount_points(mountinfo: str, folder: Path) -> Iterator[str]:
    """Mount points strictly below *folder* in the text of a mountinfo file."""
    for line in mountinfo.splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
        if point.startswith(f"{folder}/"):
            yield point


def lasting_keys(keys: list[str], prefix: str) -> Iterator[str]:
    passing = tuple(prefix + branch for branch in PASSING_KEYS)
    return (key for key in keys if not key.startswith(passing))


def _links(pattern: str) -> Iterator[str]:
    return (name for name in os.listdir("/sys/class/net") if re.fullmatch(pattern, name))


def _cgroups(parents: tuple[str, ...], root: Path = Path("/sys/fs/cgroup")) -> Iterator[str]:
    """Children of *parents* in the v2 tree or in each v1 hierarchy, one level deep: one per instance."""
    for base in (root, *(p for p in root.iterdir() if p.is_dir() and not p.is_symlink())):
        for parent in parents:
            yield from (str(p.relative_to(root)) for p in _folders(base / parent))


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []


def _tables(pattern: str) -> Iterator[str]:
    shown = run(["nft", "-j", "list", "tables"], capture_output=True, check=True, timeout=30)
    for item in json.loads(shown.stdout)["nftables"]:
        table = item.get("table")
        if table and re.fullmatch(pattern, table["name"]):
            yield f"{table['family']} {table['name']}"


def _loops(folder: Path) -> Iterator[str]:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            backing = file.read_text().strip()
            if backing.startswith(f"{folder}/"):
                yield f"{file.parts[3]} on {backing}"


def _processes(folder: Path, *words: str) -> Iterator[str]:
    """Command lines (which name the instance or network, not the pid, so a restart is no leak)."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if str(folder) in line and any(word in line for word in words):
                yield line


def _files(state: Path) -> Iterator[str]:
    """What each room keeps per thing: one level of instances and images, two of the others."""
    patterns: tuple[str, ...] = (
        "instances/*",
        "images/*",
        "pools/*",
        "pools/*/*",
        "networks/*",
        "networks/*/*/*",
    )
    patterns += (
        "pools/*/containers/*",
        "pools/*/instances/*",
        "logs/*/*",
        "mounted/*",
        "mounted/*/*",
        "engine/*",
        "disks/*",
    )
    for pattern in patterns:
        yield from (str(path.relative_to(state)) for path in state.glob(pattern))


def _leases(state: Path) -> Iterator[str]:
    for file in state.glob("networks/*/leases"):
        for line in file.read_text().splitlines():
            yield f"{file.parent.name}: {' '.join(line.split()[1:4])}"


def _keys(scope: Scope) -> list[str]:
    """All keys below the prefix, by etcd's own JSON gateway: no code of ours in between."""
    start = scope.prefix.encode()
    end = start[:-1] + bytes([start[-1] + 1])
    body = {"key": _b64(start), "range_end": _b64(end), "keys_only": True}
    request = urllib.request.Request(
        f"http://{scope.etcd}/v3/kv/range", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as reply:
        answer = json.load(reply)
    return [base64.b64decode(kv["key"]).decode() for kv in answer.get("kvs", [])]


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
