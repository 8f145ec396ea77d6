"""One side of the comparison: a daemon behind LXD_DIR, driven by the stock `lxc` client or its raw socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Done = subprocess.CompletedProcess[bytes]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a daemon's unix socket, kept open between requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Side:
    """A daemon to measure. `control_pids` finds the processes of its control plane, when asked."""

    name: str
    lxd_dir: Path
    config_dir: Path
    pids: list[int] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.lxd_dir / "unix.socket"

    def env(self) -> dict[str, str]:
        self.config_dir.mkdir(parents=True, exist_ok=True)
        return {**os.environ, "LXD_DIR": str(self.lxd_dir), "LXD_CONF": str(self.config_dir)}

    def try_lxc(self, *args: str, timeout_s: float = 300, stdin: bytes = b"") -> Done:
        return subprocess.run(
            ["lxc", *args], env=self.env(), input=stdin, capture_output=True, timeout=timeout_s
        )

    def lxc(self, *args: str, timeout_s: float = 300) -> str:
        """Run the stock client; raises with its words if it fails."""
        done = self.try_lxc(*args, timeout_s=timeout_s)
        if done.returncode:
            raise RuntimeError(f"{self.name}: lxc {' '.join(args)}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def timed(self, *args: str, timeout_s: float = 300) -> float:
        """Seconds that one command of the stock client takes."""
        begun = time.perf_counter()
        self.lxc(*args, timeout_s=timeout_s)
        return time.perf_counter() - begun

    def start_many(self, *commands: tuple[str, ...]) -> list[subprocess.Popen[bytes]]:
        quiet = subprocess.DEVNULL
        return [
            subprocess.Popen(["lxc", *c], env=self.env(), stdin=quiet, stdout=quiet, stderr=subprocess.PIPE)
            for c in commands
        ]

    def connect(self) -> UnixConnection:
        return UnixConnection(self.socket)

    def request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One REST call, the parsed envelope."""
        connection = self.connect()
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def names(self, prefix: str) -> list[str]:
        """Instances whose name begins with *prefix*."""
        urls = self.request("GET", "/1.0/instances").get("metadata") or []
        return [n for n in (u.rpartition("/")[2] for u in urls) if n.startswith(prefix)]

    def delete_all(self, prefix: str) -> None:
        """Remove the instances of a finished or broken case, fifty per command."""
        names = self.names(prefix)
        for first in range(0, len(names), 50):
            self.try_lxc("delete", "--force", *names[first : first + 50], timeout_s=600)
