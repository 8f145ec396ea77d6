"""Settings that every process shares, read once from the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("gateway", "cluster", "image", "runtime", "network")
_METRICS_BASE = 9460


@dataclass(frozen=True)
class Settings:
    """Where things lie. `member` is this host's name."""

    state_dir: Path
    etcd_endpoint: str
    member: str
    bridge: str
    https_address: str
    metrics_base: int
    log_level: str
    group: str

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        return cls(
            state_dir=Path(env.get("PODIUM_DIR", "/var/lib/podium")),
            etcd_endpoint=env.get("PODIUM_ETCD", "127.0.0.1:23790"),
            member=env.get("PODIUM_MEMBER", "") or socket.gethostname(),
            bridge=env.get("PODIUM_BRIDGE", "podiumbr0"),
            https_address=env.get("PODIUM_HTTPS", ":8443"),
            metrics_base=int(env.get("PODIUM_METRICS_PORT", str(_METRICS_BASE))),
            log_level=env.get("PODIUM_LOG_LEVEL", "info"),
            group=env.get("PODIUM_GROUP", "podium"),
        )

    @property
    def run_dir(self) -> Path:
        return self.state_dir / "run"

    @property
    def socket_path(self) -> Path:
        """The REST socket, where LXD_DIR=<state_dir> makes clients look."""
        return self.state_dir / "unix.socket"

    def service_socket(self, service: str) -> Path:
        return self.run_dir / f"{service}.sock"

    def metrics_port(self, service: str) -> int:
        return self.metrics_base + SERVICES.index(service)
