"""Break a running Podium and watch it recover; knows it by state dir, client and supervisor file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.client import Side
from core.settings import Settings
from tests.faults.leaks import Scope

SERVICES = ("cluster", "image", "runtime", "network", "gateway")


@dataclass(frozen=True)
class Victim:
    """A Podium that may be hurt."""

    state_dir: Path
    image: str
    config_dir: Path

    @property
    def side(self) -> Side:
        return Side("podium", self.state_dir, self.config_dir)

    def processes(self) -> dict[str, int]:
        noted = json.loads((self.state_dir / "run" / "supervisor.json").read_text())
        return {name: int(pid) for name, pid in noted["processes"].items()}

    def scope(self) -> Scope:
        """Where to look for leaks."""
        return Scope(self.state_dir, self.settings().etcd_endpoint)

    def settings(self) -> Settings:
        """The settings its own cluster service was given: ports and addresses of this very Podium."""
        return Settings.from_env(self.environ())

    def environ(self) -> dict[str, str]:
        """What its cluster service was started with."""
        environ = Path(f"/proc/{self.processes()['cluster']}/environ").read_bytes().decode().split("\0")
        return dict(item.split("=", 1) for item in environ if "=" in item)

    def supervisor(self) -> int:
        return int(json.loads((self.state_dir / "run" / "supervisor.json").read_text())["supervisor"])

    def kill(self, *services: str) -> None:
        """SIGKILL, all together; returns when the supervisor has put new ones in their place."""
        before = self.processes()
        for service in services:
            os.kill(before[service], signal.SIGKILL)
        wait_for(
            lambda: all(self.processes().get(s) not in (None, before[s]) for s in services), 30, "a restart"
        )

    def answers(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self.side.request("GET", "/1.0/instances?recursion=1")["status_code"] == 200)
        return False

    def wait_until_it_answers(self, timeout_s: float = 60) -> None:
        wait_for(self.answers, timeout_s, "an answer")

    def instances(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Name -> full record with state, of the instances whose name begins with *prefix*."""
        listed = self.side.request("GET", "/1.0/instances?recursion=2")["metadata"]
        return {item["name"]: item for item in listed if item["name"].startswith(prefix)}

    def pids(self, prefix: str) -> dict[str, int]:
        return {name: int(item["state"]["pid"]) for name, item in self.instances(prefix).items()}

    def unfinished_operations(self) -> list[str]:
        groups = self.side.request("GET", "/1.0/operations?recursion=1")["metadata"] or {}
        return [op["id"] for status in ("pending", "running") for op in groups.get(status, [])]


def wait_for(claim: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if claim():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.1)


@dataclass
class Launches:
    """What a loop of launches saw: names that the client called launched, and those it called failed."""

    launched: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def launching(victim: Victim, prefix: str, *, most: int = 12) -> Iterator[Launches]:
    """Launch one instance after another through the stock client for as long as the block runs."""
    seen, enough = Launches(), threading.Event()
    worker = threading.Thread(target=_launch, args=(victim, prefix, most, seen, enough))
    worker.start()
    try:
        yield seen
    finally:
        enough.set()
        worker.join(150)
    assert not worker.is_alive(), "a launch never came back"


def _launch(victim: Victim, prefix: str, most: int, seen: Launches, enough: threading.Event) -> None:
    for n in range(most):
        if enough.is_set():
            return
        name = f"{prefix}{n}"
        try:
            done = victim.side.try_lxc("launch", victim.image, name, timeout_s=120)
        except subprocess.TimeoutExpired:
            seen.failed[name] = "no answer in 120 s"
            continue
        if done.returncode == 0:
            seen.launched.append(name)
        else:
            seen.failed[name] = done.stderr.decode().strip()


@contextlib.contextmanager
def halted(pid: int) -> Iterator[None]:
    """Hold a process still, as a machine that stopped answering would be."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
