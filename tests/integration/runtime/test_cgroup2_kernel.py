"""The cgroup v2 paths on a real v2 hierarchy: the machine's own, or the "unified" one of a hybrid machine.

Which controllers are there does not matter: freezing, killing and CPU time are in every v2 cgroup.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime.kernel.cgroups import LinuxCgroups

ID = "c1"


def hierarchy() -> Path | None:
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (root / "cgroup.controllers").exists() and os.access(root, os.W_OK):
            return root
    return None


@pytest.fixture
def root() -> Iterator[Path]:
    """A cgroup that looks like the root of a v2 hierarchy, with one instance in it."""
    top = hierarchy()
    if top is None:
        pytest.skip("no cgroup v2 hierarchy here")
    made = top / f"podium-test-{secrets.token_hex(4)}"
    (made / "podium" / ID / "inner").mkdir(parents=True)
    yield made
    for path, _, _ in os.walk(made, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


@pytest.fixture
def guest(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A busy process deep inside the instance's cgroup."""
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    (root / "podium" / ID / "inner" / "cgroup.procs").write_text(str(process.pid))
    yield process
    process.kill()
    process.wait()


def until(claim: object, what: str) -> None:
    assert callable(claim)
    end = time.monotonic() + 5
    while not claim():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_frozen_instance_stands_still_until_it_is_thawed(
    root: Path, guest: subprocess.Popen[bytes]
) -> None:
    cgroups = LinuxCgroups(root)
    assert cgroups.is_v2
    cgroups.freeze(ID)
    assert cgroups.is_frozen(ID)
    events = root / "podium" / ID / "cgroup.events"
    until(lambda: "frozen 1" in events.read_text(), "never frozen")
    before = ticks(guest.pid)
    time.sleep(0.2)
    assert ticks(guest.pid) == before
    cgroups.thaw(ID)
    assert not cgroups.is_frozen(ID)
    until(lambda: ticks(guest.pid) > before, "never thawed")


def test_cpu_time_is_counted(root: Path, guest: subprocess.Popen[bytes]) -> None:
    until(lambda: LinuxCgroups(root).usage(ID).cpu_ns > 10_000_000, "no CPU time")


@pytest.mark.parametrize("frozen", [False, True])
def test_removing_kills_what_is_left_even_when_frozen(
    root: Path, guest: subprocess.Popen[bytes], frozen: bool
) -> None:
    """An init whose monitor was killed lives on; what cleans up must not leave it."""
    cgroups = LinuxCgroups(root)
    if frozen:
        cgroups.freeze(ID)
    cgroups.remove(ID)
    assert guest.wait(5) == -9
    until(lambda: cgroups.remove(ID) or not (root / "podium" / ID).exists(), "the cgroup stays")
