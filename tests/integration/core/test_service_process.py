"""A real service process over a real etcd: one per host, and a signal ends it cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.state.claims import TTL_S
from services.cluster.authority import Authority
from tests.contract.conftest import etcd_endpoint, free_port
from tests.faults.harness import wait_for

__all__ = ["etcd_endpoint"]
ROOT = Path(__file__).resolve().parents[3]


class Starter:
    """Starts cluster services of one state folder, and ends those that are left."""

    def __init__(self, folder: Path, endpoint: str, member: str) -> None:
        self.folder = folder
        self._endpoint = endpoint
        self._member = member
        self._started: list[subprocess.Popen[str]] = []
        (folder / "run").mkdir(parents=True)
        Authority(folder / "tls", "").ensure("alpha")

    def start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PODIUM_DIR": str(self.folder),
            "PODIUM_ETCD": self._endpoint,
            "PODIUM_MEMBER": self._member,
            "PODIUM_METRICS_PORT": str(free_port()),
            "PODIUM_RPC": "",
        }
        argv = [sys.executable, "-m", "services.cluster"]
        process = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self._started.append(process)
        return process

    def wait_until_it_serves(self) -> None:
        wait_for((self.folder / "run" / "cluster.sock").exists, 20, "the service's socket")

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def hosts(tmp_path: Path, etcd_endpoint: str) -> Iterator[tuple[Starter, Starter]]:
    """Two folders that claim to be the same member, as a cloned machine would."""
    member = uuid.uuid4().hex
    made = [Starter(tmp_path / name, etcd_endpoint, member) for name in ("one", "other")]
    yield made[0], made[1]
    for starter in made:
        starter.end()


@pytest.fixture
def starter(hosts: tuple[Starter, Starter]) -> Starter:
    return hosts[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(starter: Starter, number: signal.Signals) -> None:
    """`make down` must not leave tracebacks in the logs, nor wait for the kill that follows."""
    process = starter.start()
    starter.wait_until_it_serves()

    process.send_signal(number)
    process.send_signal(number)

    _, log = process.communicate(timeout=8)
    assert (process.returncode, "Traceback" in log) == (0, False), log


def test_a_second_one_says_why_it_does_not_start(starter: Starter) -> None:
    starter.start()
    starter.wait_until_it_serves()

    second = starter.start()

    _, log = second.communicate(timeout=20)
    assert (second.returncode, "Traceback" in log) == (1, False)
    assert "Another cluster service runs here" in log


def test_after_a_kill_it_is_back_at_once(starter: Starter) -> None:
    """The old process's lease still runs, but the file lock proves that it is dead."""
    first = starter.start()
    starter.wait_until_it_serves()
    first.kill()
    first.wait()
    (starter.folder / "run" / "cluster.sock").unlink()

    starter.start()

    wait_for((starter.folder / "run" / "cluster.sock").exists, TTL_S / 2, "the service's socket")


def test_a_frozen_one_gives_way_to_the_one_that_took_over(hosts: tuple[Starter, Starter]) -> None:
    """The other waits for the lease; the first, thawed, finds its claim taken, says so and ends."""
    frozen = hosts[0].start()
    hosts[0].wait_until_it_serves()
    frozen.send_signal(signal.SIGSTOP)
    began = time.monotonic()

    hosts[1].start()
    hosts[1].wait_until_it_serves()
    assert time.monotonic() - began > TTL_S / 2
    frozen.send_signal(signal.SIGCONT)

    _, log = frozen.communicate(timeout=TTL_S * 2)
    assert "claim_lost" in log
    assert (frozen.returncode, "Traceback" in log) == (0, False)
