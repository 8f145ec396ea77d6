"""Settings that every process shares, read once from the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core import membership
from core.errors import Invalid
from core.membership import Membership

SERVICES = ("gateway", "cluster", "image", "runtime", "network")
USER = "podium"
_METRICS_BASE = 9460
# etcd insists on a port, also in the name of a unix socket.
ETCD_SOCKET = "etcd.sock:2379"
_RPC_BASE = "127.0.0.1:9470"


@dataclass(frozen=True)
class Settings:
    """Where things lie. `member` is this host's name.

    cluster: what it is in a cluster (core/membership.py), which settles its name and address.

    etcd_endpoint is unix:PATH, below <state>/run unless PODIUM_ETCD says otherwise, or host:port: etcd asks
    nobody who they are, so a TCP port would give the state, and with it root, to every user of the host.

    rpc_base (PODIUM_RPC) is host:port. Each service speaks mTLS on that host and the port after it by
    its place in SERVICES: cluster 9471, image 9472, runtime 9473, network 9474, beside their metrics on
    9461 to 9464. "" turns it off; with host 0.0.0.0 others find this member by its name.
    """

    state_dir: Path
    etcd_endpoint: str
    member: str
    bridge: str
    https_address: str
    metrics_base: int
    rpc_base: str
    log_level: str
    group: str
    cluster: Membership | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        state_dir = Path(env.get("PODIUM_DIR", "/var/lib/podium"))
        cluster = membership.read(state_dir)
        return cls(
            state_dir=state_dir,
            etcd_endpoint=env.get("PODIUM_ETCD", "") or f"unix:{state_dir}/run/{ETCD_SOCKET}",
            member=cluster.member if cluster else env.get("PODIUM_MEMBER", "") or socket.gethostname(),
            bridge=env.get("PODIUM_BRIDGE", "podiumbr0"),
            https_address=env.get("PODIUM_HTTPS", ":8443"),
            metrics_base=int(env.get("PODIUM_METRICS_PORT", str(_METRICS_BASE))),
            rpc_base=cluster.rpc if cluster else env.get("PODIUM_RPC", _RPC_BASE),
            log_level=env.get("PODIUM_LOG_LEVEL", "info"),
            group=env.get("PODIUM_GROUP", "podium"),
            cluster=cluster,
        )

    @property
    def underlay(self) -> str:
        """Return the address at which others reach this member, which overlay networks use too."""
        return self.rpc_base.rpartition(":")[0].strip("[]")

    @property
    def run_dir(self) -> Path:
        return self.state_dir / "run"

    @property
    def socket_path(self) -> Path:
        """The REST socket, where LXD_DIR=<state_dir> makes clients look."""
        return self.state_dir / "unix.socket"

    def service_socket(self, service: str) -> Path:
        return self.run_dir / f"{service}.sock"

    @property
    def lending_socket(self) -> Path:
        """Where the runtime lends pipes of commands to gateways of this host."""
        return self.run_dir / "lending.sock"

    @property
    def image_lending_socket(self) -> Path:
        """Where the image service lends pipes of uploads and files of images to gateways of this host."""
        return self.run_dir / "image-lending.sock"

    @property
    def tls_dir(self) -> Path:
        return self.state_dir / "tls"

    @property
    def url_address(self) -> str:
        """Return where others reach the REST API of a member of a cluster, as host:port."""
        host, _, port = self.https_address.rpartition(":")
        return f"{self.cluster.host}:{port}" if self.cluster and port and not host else self.https_address

    def rpc_listen(self, service: str) -> str:
        """Return where *service* listens for other members, as host:port; "" for nowhere."""
        if not self.rpc_base:
            return ""
        host, port = _host_and_port(self.rpc_base)
        return f"{host}:{port + SERVICES.index(service)}"

    def rpc_address(self, service: str) -> str:
        """Return where other members reach *service*; "" for nowhere."""
        listen = self.rpc_listen(service)
        host, _, port = listen.rpartition(":")
        return f"{self.member}:{port}" if host in ("0.0.0.0", "[::]") else listen  # noqa: S104 - compared

    def metrics_port(self, service: str) -> int:
        """Return where *service* shows its metrics on the loopback; etcd comes after Podium's own."""
        return self.metrics_base + (*SERVICES, "etcd").index(service)


def _host_and_port(text: str) -> tuple[str, int]:
    """Raises: Invalid."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 - len(SERVICES):
        raise Invalid("BAD_SETTING", f"PODIUM_RPC={text!r} is not host:port; for example {_RPC_BASE}")
    return host, int(port)
