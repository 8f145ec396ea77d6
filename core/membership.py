"""What a member of a cluster knows before anything else runs: <state>/cluster.json, written by root.

Standalone Podiums have no such file. Beside it, run/etcd-endpoints names the etcds that may be asked
when this member's own is away: the cluster service keeps it, everyone who asks etcd reads it then.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import Invalid
from core.files import replace_file

FILE = "cluster.json"
ENDPOINTS = "etcd-endpoints"
# Behind those of the services (core.settings.SERVICES), on the same address.
ETCD_CLIENT, ETCD_PEER = 5, 6


@dataclass(frozen=True)
class Membership:
    """member: its name; rpc: host:port as PODIUM_RPC; etcd: whether it runs one, else it asks the others'.

    first_peers: what a new etcd is told of the others, as --initial-cluster; "" for the one that began.
    """

    member: str = ""
    rpc: str = ""
    etcd: bool = True
    first_peers: str = ""

    @property
    def host(self) -> str:
        return self.rpc.rpartition(":")[0]

    @property
    def etcd_client(self) -> str:
        return etcd_client(self.rpc)

    @property
    def etcd_peer(self) -> str:
        return etcd_peer(self.rpc)


def is_here(member: str, here: str) -> bool:
    """Return whether what a record says to be on *member* is on *here*; records of one member name none."""
    return member in ("", here)


def _moved(address: str, by: int) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + by}"


def etcd_client(rpc: str) -> str:
    """Return host:port where the etcd of a member answers others, over mTLS."""
    return _moved(rpc, ETCD_CLIENT)


def etcd_peer(rpc: str) -> str:
    return _moved(rpc, ETCD_PEER)


def read(state_dir: Path) -> Membership | None:
    """Return None for a Podium that is alone. Raises: Invalid."""
    path = state_dir / FILE
    try:
        found = json.loads(path.read_bytes())
        return Membership(**found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as exc:
        raise Invalid("BAD_SETTING", f"{path} cannot be read: {exc}") from exc


def write(state_dir: Path, membership: Membership) -> None:
    replace_file(state_dir / FILE, json.dumps(asdict(membership), indent=2) + "\n", durable=True)


def endpoints(run_dir: Path) -> tuple[str, ...]:
    """Return the etcds of the cluster as host:port; nothing where none are known."""
    try:
        return tuple((run_dir / ENDPOINTS).read_text().split())
    except OSError:
        return ()


def write_endpoints(run_dir: Path, found: tuple[str, ...]) -> None:
    replace_file(run_dir / ENDPOINTS, "".join(f"{endpoint}\n" for endpoint in found), durable=True)
