"""Work inside a guest's network namespace, from a process that stays outside."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from services.runtime.kernel import netns

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def guest() -> Iterator[int]:
    process = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    own, end = os.stat("/proc/self/ns/net").st_ino, time.monotonic() + 5
    while time.monotonic() < end and os.stat(f"/proc/{process.pid}/ns/net").st_ino == own:
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.wait()


def test_an_interface_comes_up_inside_and_we_stay_outside(guest: int) -> None:
    before = os.stat("/proc/self/ns/net").st_ino
    netns.set_up(guest, ["lo"])
    shown = subprocess.run(
        ["nsenter", "-t", str(guest), "-n", "ip", "-j", "link", "show", "lo"],
        capture_output=True,
        check=True,
        timeout=10,
    )
    assert "UP" in json.loads(shown.stdout)[0]["flags"]
    assert os.stat("/proc/self/ns/net").st_ino == before


def test_an_interface_that_is_not_there_is_an_error(guest: int) -> None:
    with pytest.raises(OSError, match="No such device"):
        netns.set_up(guest, ["none0"])
