"""Break a running Podium and watch it recover; knows it by state dir, client and supervisor file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.client import Side
from core.settings import Settings
from tests.faults.leaks import Scope

_PAUSE_S = 0.3
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


def by_many(names: Sequence[str], work: Callable[[str], Any], *, clients: int = 16) -> None:
    """Do *work* for each name, by as many clients at once."""
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, names))


def timed(ask: Callable[[], Any]) -> float:
    """Return how many seconds *ask* took."""
    begun = time.perf_counter()
    ask()
    return time.perf_counter() - begun


def wait_for(claim: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline, pause_s = time.monotonic() + timeout_s, 0.01
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if claim():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


@dataclass
class Work:
    """What loops of work saw. *wrong*: what was called done and was not so; it must stay empty."""

    launched: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def working(victim: Victim, prefix: str, *, most: int = 12) -> Iterator[Work]:
    """Launch without pause, and use other instances from begin to end, for as long as the block runs."""
    seen, enough = Work(), threading.Event()
    loops = (_launch, _use)
    workers = [threading.Thread(target=loop, args=(victim, prefix, most, seen, enough)) for loop in loops]
    for worker in workers:
        worker.start()
    try:
        yield seen
    finally:
        enough.set()
        for worker in workers:
            worker.join(150)
    assert not any(worker.is_alive() for worker in workers), "a command never came back"


def _try(victim: Victim, seen: Work, *args: str, stdin: bytes = b"") -> bytes | None:
    """Output of the client; None, noted as failed, when it says so itself."""
    try:
        done = victim.side.try_lxc(*args, timeout_s=120, stdin=stdin)
    except subprocess.TimeoutExpired:
        seen.failed[" ".join(args)] = "no answer in 120 s"
        return None
    if done.returncode:
        seen.failed[" ".join(args)] = done.stderr.decode().strip()
        return None
    return done.stdout


def _launch(victim: Victim, prefix: str, most: int, seen: Work, enough: threading.Event) -> None:
    for name in (f"{prefix}{n}" for n in range(most)):
        if enough.is_set():
            return
        if _try(victim, seen, "launch", victim.image, name) is not None:
            seen.launched.append(name)
        else:
            time.sleep(_PAUSE_S)


def _use(victim: Victim, prefix: str, most: int, seen: Work, enough: threading.Event) -> None:
    """Launch, run a command, push a file and read it back, stop, delete; believe what succeeded."""
    for name in (f"{prefix}use-{n}" for n in range(most)):
        if enough.is_set():
            return
        if _try(victim, seen, "launch", victim.image, name) is None:
            time.sleep(_PAUSE_S)
            continue
        said = _try(victim, seen, "exec", name, "--", "echo", name)
        if said not in (None, f"{name}\n".encode()):
            seen.wrong.append(f"exec in {name} said {said!r}")
        sent = os.urandom(1 << 18)
        if _try(victim, seen, "file", "push", "-", f"{name}/root/sent", stdin=sent) is not None:
            got = _try(victim, seen, "file", "pull", f"{name}/root/sent", "-")
            if got not in (None, sent):
                seen.wrong.append(f"{name} has other bytes than were pushed")
        _try(victim, seen, "stop", "--force", name)
        if _try(victim, seen, "delete", "--force", name) is not None:
            seen.used.append(name)


@contextlib.contextmanager
def halted(pid: int) -> Iterator[None]:
    """Hold a process still, as a machine that stopped answering would be."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def without(victim: Victim, service: str) -> Iterator[None]:
    """Kill *service*, and hold back the supervisor so that it stays dead for the block."""
    with halted(victim.supervisor()):
        os.kill(victim.processes()[service], signal.SIGKILL)
        yield
