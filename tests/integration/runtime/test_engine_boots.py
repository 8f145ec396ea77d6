"""systemd in a real container: it boots confined, ends as told, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import WrongState
from services.runtime.ports import NicPlan
from tests.integration.runtime.conftest import Box, until

# sys_module, sys_rawio, sys_time, mac_override, mac_admin. Source: linux/capability.h.
REDUCED = sum(1 << bit for bit in (16, 17, 25, 32, 33))


@pytest.fixture
def bridge() -> Iterator[str]:
    name = f"pt{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)


def status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def leftovers(id: str) -> list[str]:
    """Return mounts and cgroups that carry the id."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if id in line]
    groups = [path for path, folders, _ in os.walk("/sys/fs/cgroup") if Path(path).name == id]
    return mounts + groups


async def test_systemd_boots_confined_and_so_is_what_exec_runs(box: Box) -> None:
    box.limits = box.cgroups.plan({"limits.memory": "300MiB", "limits.processes": "200"})
    pid = await box.engine.start(await box.plan())
    assert await box.booted() in ("running", "degraded")
    init = status(Path(f"/proc/{pid}/status").read_text())
    code, output = await box.run("cat", "/proc/self/status")
    attached = status(output)
    assert code == 0
    for found in (init, attached):
        assert found["Seccomp"] == "2"
        assert int(found["CapBnd"], 16) & REDUCED == 0
    assert init["Uid"].split()[0] == "2000000"
    assert (await box.run("hostname"))[1].strip() == "web"
    assert (await box.run("stat", "-c", "%u:%g %a", "/etc/hostname"))[1].strip() == "0:0 644"
    usage = box.cgroups.usage(box.id)
    assert usage.memory_limit == 300 << 20
    assert usage.memory > 0 and usage.cpu_ns > 0 and usage.processes > 3
    shown = box.cgroups.details(box.id)
    assert shown.memory_limit == 300 << 20
    assert shown.memory > 0 and shown.details.memory["rss"] > 0 and shown.processes > 3


async def test_exec_passes_codes_and_environment_and_no_descriptor(box: Box) -> None:
    await box.engine.start(await box.plan())
    assert (await box.run("sh", "-c", "exit 7"))[0] == 7
    assert (await box.run("/no/such"))[0] == 127
    assert (await box.run("/etc/hostname"))[0] == 126
    assert (await box.run("sh", "-c", 'echo "$A"'))[1] == "b c\n"
    held = (await box.run("sh", "-c", "ls /proc/$$/fd"))[1].split()
    assert set(held) <= {"0", "1", "2"}


async def test_killing_leaves_no_mount_cgroup_or_veth(box: Box, bridge: str) -> None:
    host_name = f"pv{uuid.uuid4().hex[:8]}"
    nic = NicPlan("eth0", "eth0", host_name, "00:16:3e:aa:bb:01", 1500, bridge)
    await box.engine.start(await box.plan((nic,)))
    assert Path(f"/sys/class/net/{host_name}/master").resolve().name == bridge
    before = time.monotonic()
    await box.clean()
    assert time.monotonic() - before < 3
    await until(lambda: not Path(f"/sys/class/net/{host_name}").exists(), "the veth is gone")
    assert leftovers(box.id) == []
    assert box.engine.running() == set()


async def test_a_frozen_instance_can_be_killed(box: Box) -> None:
    await box.engine.start(await box.plan())
    box.cgroups.freeze(box.id)
    assert box.cgroups.is_frozen(box.id)
    box.cgroups.thaw(box.id)
    assert not box.cgroups.is_frozen(box.id)
    box.cgroups.freeze(box.id)
    async with asyncio.timeout(5):
        await box.engine.kill(box.id)
    assert box.engine.pid(box.id) == 0


async def test_poweroff_and_reboot_are_told_apart(box: Box) -> None:
    plan = await box.plan()
    for command, target in (("reboot", "reboot"), ("poweroff", "stop")):
        await box.engine.start(plan)
        await box.booted()
        await box.run("systemctl", command)
        record = await asyncio.wait_for(box.engine.wait_exit(box.id), 20)
        assert record.target == target
        assert abs(record.time - time.time()) < 10
        assert box.engine.pid(box.id) == 0


async def test_shutdown_is_heard_by_init(box: Box) -> None:
    await box.engine.start(await box.plan())
    await box.booted()
    await box.engine.shutdown(box.id)
    assert (await asyncio.wait_for(box.engine.wait_exit(box.id), 20)).target == "stop"


async def test_starting_twice_is_starting_once(box: Box) -> None:
    plan = await box.plan()
    assert await box.engine.start(plan) == await box.engine.start(plan)


async def test_an_instance_outlives_the_process_that_started_it(box: Box) -> None:
    plan = await box.plan()
    code = (
        "import asyncio, os, signal\nfrom pathlib import Path, PosixPath\n"
        "from services.runtime.domain.idmaps import *\n"
        "from services.runtime.engine.lxc import LxcEngine\n"
        "from services.runtime.ports import EnginePlan\n"
        f"asyncio.run(LxcEngine(Path({str(box.state)!r})).start({plan!r}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert box.engine.running() == {box.id}
    assert await box.booted() in ("running", "degraded")


async def test_a_start_that_fails_says_why_and_leaves_no_process(box: Box) -> None:
    plan = await box.plan((NicPlan("eth0", "eth0", "pvnone0", "00:16:3e:aa:bb:02", 1500, "nosuchbridge"),))
    with pytest.raises(WrongState) as caught:
        await box.engine.start(plan)
    assert caught.value.reason == "START_FAILED"
    assert "no reason" not in str(caught.value)
    assert box.engine.pid(box.id) == 0
