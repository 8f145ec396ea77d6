"""The stock client against the containers, and what the test asks of the instance that it launches."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

_NAME = "pod:inside"
_LIMIT = 256 << 20


class Client:
    """Talks by the socket in the volume at first, then by the remote "pod": the published HTTPS port."""

    def __init__(self, work: Path, state_dir: Path) -> None:
        self.state_dir = state_dir
        own = {"LXD_DIR": str(state_dir), "LXD_CONF": str(work / "lxc"), "HOME": str(work)}
        self._environment = {**os.environ, **own}
        (work / "lxc").mkdir()

    def lxc(self, *args: str) -> str:
        """Return what the client prints. Raises: RuntimeError with what it says."""
        done = subprocess.run(
            ["lxc", *args],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"lxc {' '.join(args[:4])}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def add_remote(self) -> None:
        token = self.lxc("config", "trust", "add", "--name", "trial").strip().splitlines()[-1]
        # The published port by name: the addresses in a token are those inside.
        url = "https://127.0.0.1:8443"
        self.lxc("remote", "add", "pod", url, "--accept-certificate", "--password", token)

    def launch(self) -> None:
        self.lxc("launch", "pod:debian/12", _NAME)

    def start(self) -> None:
        self.lxc("start", _NAME)

    def delete(self) -> None:
        self.lxc("delete", "--force", _NAME)

    def inside(self, *argv: str) -> str:
        return self.lxc("exec", _NAME, "--", *argv)

    def has_address(self) -> bool:
        """Return whether the instance is listed as running with the address that it really got."""
        found = json.loads(self.lxc("list", "pod:", "--format", "json"))
        state = next((c["state"] for c in found if c["status"] == "Running"), None) or {}
        listed = ((state.get("network") or {}).get("eth0") or {}).get("addresses") or []
        ipv4 = [a["address"] for a in listed if a["family"] == "inet"]
        return bool(ipv4) and f" {ipv4[0]}/" in self.inside("ip", "-4", "-o", "address", "show", "eth0")

    def init_began(self) -> str:
        """Return when the instance's init was started, in clock ticks since the host's boot."""
        return self.inside("cat", "/proc/1/stat").rpartition(")")[2].split()[19]

    def reaches(self, address: str) -> bool:
        """Return whether *address* answers the instance."""
        return "yes" in self.inside("sh", "-c", f"ping -c1 -W2 {address} >/dev/null && echo yes; true")

    def check_limit(self) -> None:
        """Raises: RuntimeError unless a limit set from outside is what the instance's cgroup says."""
        self.lxc("config", "set", _NAME, "limits.memory", str(_LIMIT))
        files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
        seen = self.inside("sh", "-c", f"cat {files} 2>/dev/null; true").split()
        if str(_LIMIT) not in seen:
            raise RuntimeError(f"limits.memory is {_LIMIT}, but inside it reads {seen}")
