"""What one Podium holds on its host, as named sets, so that two moments can be compared.

A test takes a `Snapshot` before and after; `leaked(before, after)` names what was left behind.
Only things of the Podium below *state_dir* count, so others may work on the same host: its cgroups,
links and tables are known by the ids and names that its etcd has ever held. Pure apart from `take`,
which only reads.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from subprocess import run
from typing import Any
from urllib.parse import unquote

from bench.client import UnixConnection
from services.network.domain.render import table_name

_ID_LENGTH = 36
# Finished operations and sent events stay a while by design; presence goes with its lease. Warnings tell of
# the host, on which others may be at work, and are kept when they are resolved.
PASSING_KEYS = ("operations/", "operation-events/", "claims/", "presence/", "warnings/")
# What is written of who brings an image and who has it follows the files: each sweep makes it right again.
PASSING_KEYS += ("image-claims/", "image-copies/")

# The folder of a pool's notes comes with the first of them, and stays.
_NOTES = re.compile(r"pools/[^/]+/notes")


@dataclass(frozen=True)
class Scope:
    """Which Podium to look at."""

    state_dir: Path
    etcd: str
    prefix: str = "/podium/v1/"
    cgroup_parents: tuple[str, ...] = ("podium", "podium.monitor")


@dataclass(frozen=True)
class Owned:
    """Every id and name that the Podium's records ever had; what carries one of them is its own."""

    ids: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    bridges: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    @property
    def tables(self) -> frozenset[str]:
        nics = {f"nic_{link}" for link in self.links}
        return frozenset(table_name(name) for name in self.bridges | nics)

    def __or__(self, other: Owned) -> Owned:
        return Owned(*(getattr(self, f.name) | getattr(other, f.name) for f in fields(self)))


# Scope -> the first revision that was not read yet, and what was owned before it. A run of all faults looks
# a thousand times at a history that grows to tens of thousands of writes; so each is read once.
_read: dict[Scope, tuple[int, Owned]] = {}


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
    owned = owned_until_now(scope)
    keys = frozenset(lasting_keys((key for key, _ in _present(scope)), scope.prefix))
    return Snapshot(
        {
            "mount": frozenset(mount_points(Path("/proc/self/mountinfo").read_text(), state)),
            "link": frozenset(_links(owned)) | frozenset(_shapers(state)),
            "cgroup": frozenset(_cgroups(scope.cgroup_parents, owned.ids)),
            "neighbour": frozenset(_neighbours(owned.addresses)),
            "nft table": frozenset(_tables(owned.tables)),
            "loop device": frozenset(_loops(state)),
            "dnsmasq": frozenset(_processes(state, "dnsmasq")),
            "monitor": frozenset(_processes(state, "[lxc monitor]", "lxc-start")),
            "command": frozenset(_processes(state, "lxc-attach")),
            "file": frozenset(_files(state)),
            "lease": frozenset(_leases(state, keys, scope.prefix)),
            "etcd key": keys,
        }
    )


def mount_points(mountinfo: str, folder: Path) -> Iterator[str]:
    """Mount points strictly below *folder* in the text of a mountinfo file."""
    for line in mountinfo.splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4])
        if point.startswith(f"{folder}/"):
            yield point


def lasting_keys(keys: Iterable[str], prefix: str) -> Iterator[str]:
    passing = tuple(prefix + branch for branch in PASSING_KEYS)
    return (key for key in keys if not key.startswith(passing))


def owned_by(records: Iterable[tuple[str, bytes]], prefix: str) -> Owned:
    """Read ids, links and bridges off (key, value) pairs of records."""
    ids, links, bridges, addresses = set[str](), set[str](), set[str](), set[str]()
    for key, value in records:
        branch, _, rest = key.removeprefix(prefix).partition("/")
        if branch == "observed":
            ids.add(rest)
        elif branch == "nics" and value:
            nic = json.loads(value)
            # What an instance is given is the host's own, and there before and after.
            links |= {nic.get("host_name", "")} if nic.get("nictype") != "physical" else set()
            addresses |= set(nic.get("options", {}).get("ipv4.address", "").split(","))
        elif branch == "networks":
            bridges.add(unquote(rest))
    return Owned(frozenset(ids), frozenset(links), frozenset(bridges), frozenset(addresses - {""}))


def _links(owned: Owned) -> Iterator[str]:
    """Its bridges, its NICs, and whatever else hangs on one of its bridges."""
    for folder in Path("/sys/class/net").iterdir():
        master = folder / "master"
        on = master.resolve().name if master.exists() else ""
        if folder.name in owned.links | owned.bridges or on in owned.bridges:
            yield folder.name


def _shapers(state: Path) -> Iterator[str]:
    """Devices that bound NICs; their alias begins with the folder of the networks they were made for."""
    for folder in Path("/sys/class/net").glob("pifb*"):
        with contextlib.suppress(OSError):
            if (folder / "ifalias").read_text().startswith(f"{state}/networks "):
                yield folder.name


def _cgroups(
    parents: tuple[str, ...], ids: frozenset[str], root: Path = Path("/sys/fs/cgroup")
) -> Iterator[str]:
    """Children of *parents* in the v2 tree or in each v1 hierarchy, one level deep: one per instance.

    liblxc adds a number to a name that is taken, so what begins with an id counts.
    """
    for base in (root, *(p for p in root.iterdir() if p.is_dir() and not p.is_symlink())):
        for parent in parents:
            found = (p for p in _folders(base / parent) if p.name[:_ID_LENGTH] in ids)
            yield from (str(p.relative_to(root)) for p in found)


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []


def _neighbours(addresses: frozenset[str]) -> Iterator[str]:
    """Addresses of guests that this host answers for on some interface."""
    shown = run(["ip", "-j", "neigh", "show", "proxy"], capture_output=True, check=True, timeout=30)
    for entry in json.loads(shown.stdout or b"[]"):
        if entry["dst"] in addresses:
            yield f"{entry['dst']} on {entry['dev']}"


def _tables(names: frozenset[str]) -> Iterator[str]:
    shown = run(["nft", "-j", "list", "tables"], capture_output=True, check=True, timeout=30)
    for item in json.loads(shown.stdout)["nftables"]:
        table = item.get("table")
        if table and table["name"] in names:
            yield f"{table['family']} {table['name']}"


def _loops(folder: Path) -> Iterator[str]:
    """Files behind loop devices, the second device of a file as #2: which device it is means nothing."""
    seen: Counter[str] = Counter()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            backing = file.read_text().strip()
            if backing.startswith(f"{folder}/"):
                seen[backing] += 1
                yield f"{backing} #{seen[backing]}"


def _processes(folder: Path, *words: str) -> Iterator[str]:
    """Command lines (which name the instance or network, not the pid, so a restart is no leak)."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if f"{folder}/" in line and any(word in line for word in words):
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
        "pools/*/custom/*",
        "pools/*/instances/*",
        "logs/*/*",
        "mounted/*",
        "mounted/*/*",
        "engine/*",
        "disks/*",
    )
    for pattern in patterns:
        found = (str(path.relative_to(state)) for path in state.glob(pattern))
        yield from (path for path in found if not _NOTES.fullmatch(path))


def orphaned_leases(text: str, reserved: Iterable[str]) -> Iterator[str]:
    """Leases of the text of a dnsmasq file whose address no guest has reserved."""
    rows = [line.split() for line in text.splitlines()]
    held = set(reserved)
    return (" ".join(row[1:4]) for row in rows if len(row) == 5 and row[2] not in held)


def _leases(state: Path, keys: frozenset[str], prefix: str) -> Iterator[str]:
    reserved = [unquote(key.rpartition("/")[2]) for key in keys if key.startswith(f"{prefix}addresses/")]
    for file in state.glob("networks/*/leases"):
        yield from (f"{file.parent.name}: {it}" for it in orphaned_leases(file.read_text(), reserved))


def owned_until_now(scope: Scope) -> Owned:
    """Return what all records of *scope* ever named; only what was written since the last call is read."""
    now = int(_call(scope, "/v3/kv/range", {"key": _b64("/")})["header"]["revision"])
    since, owned = _read.get(scope, (1, Owned()))
    if since > now + 1:  # another etcd, with a history of its own
        since, owned = 1, Owned()
    owned |= owned_by(history(scope, since, now), scope.prefix)
    _read[scope] = (now + 1, owned)
    return owned


def history(scope: Scope, since: int, until: int) -> Iterator[tuple[str, bytes]]:
    """Yield (key, value) of every write from revision *since* to *until*; deletions have no value."""
    if since > until:
        return
    # All keys, so that each revision up to *until* shows up and the end is known.
    create = {"key": "AA==", "range_end": "AA==", "start_revision": since}
    with _opened(scope, "/v3/watch", {"create_request": create}) as reply:
        for line in reply:
            result = json.loads(line)["result"]
            if oldest := int(result.get("compact_revision", 0)):
                yield from _present(scope)
                yield from history(scope, oldest, until)
                return
            revision = 0
            for event in result.get("events", []):
                revision = int(event["kv"]["mod_revision"])
                yield _pair(event["kv"])
            if revision >= until:
                return


def _present(scope: Scope) -> Iterator[tuple[str, bytes]]:
    """(key, value) of all keys below the prefix, by etcd's own JSON gateway: no code of ours in between."""
    start = scope.prefix
    end = start[:-1] + chr(ord(start[-1]) + 1)
    found = _call(scope, "/v3/kv/range", {"key": _b64(start), "range_end": _b64(end)})
    return (_pair(kv) for kv in found.get("kvs", []))


def _pair(kv: dict[str, str]) -> tuple[str, bytes]:
    return base64.b64decode(kv["key"]).decode(), base64.b64decode(kv.get("value", ""))


def _call(scope: Scope, path: str, body: object) -> Any:
    with _opened(scope, path, body) as reply:
        return json.load(reply)


def _opened(scope: Scope, path: str, body: object) -> Any:
    text, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    if not scope.etcd.startswith("unix:"):
        return urllib.request.urlopen(
            urllib.request.Request(f"http://{scope.etcd}{path}", text, headers), timeout=10
        )
    connection = UnixConnection(Path(scope.etcd.removeprefix("unix:")))
    connection.request("POST", path, text, headers)
    return connection.getresponse()


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
