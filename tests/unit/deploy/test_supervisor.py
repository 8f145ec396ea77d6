"""A new supervisor ends what a killed one left, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from deploy.supervisor import Program, Supervisor, end_leftovers, programs

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run").mkdir()
    return Settings.from_env({"PODIUM_DIR": str(tmp_path)})


@pytest.fixture
def started(settings: Settings, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Sleepers with the command lines and the environment of a member's processes, as noted."""
    etcd = tmp_path / "bin" / "etcd"
    etcd.parent.mkdir()
    etcd.write_text(f"#!{sys.executable}\n{SLEEP}\n")
    etcd.chmod(0o755)
    environ = {**os.environ, "PODIUM_DIR": str(tmp_path), "PATH": f"{etcd.parent}:/usr/bin:/bin"}
    found = {p.name: subprocess.Popen(argv_of(p), env=environ, cwd=tmp_path) for p in programs(settings)}
    noted = {name: process.pid for name, process in found.items()}
    # The kernel ends exec's pipe a moment before the new environment can be read.
    while not all(Path(f"/proc/{pid}/environ").read_bytes() for pid in noted.values()):
        pass
    (tmp_path / "run" / "supervisor.json").write_text(json.dumps({"supervisor": 1, "processes": noted}))
    yield found
    for process in found.values():
        process.kill()
        process.wait()


def argv_of(program: Program) -> list[str]:
    return [*program.argv] if program.name == "etcd" else [sys.executable, "-c", SLEEP, *program.argv]


def test_all_that_a_killed_supervisor_left_is_ended(
    settings: Settings, started: dict[str, subprocess.Popen[bytes]]
) -> None:
    """One that is missed keeps its lock, its port or its database, and the new set never comes up."""
    assert end_leftovers(settings)
    assert {name: process.wait(5) for name, process in started.items()} == dict.fromkeys(started, -15)
    assert not end_leftovers(settings)


def test_processes_of_another_member_are_left_alone(
    settings: Settings, started: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Pids are used again: what a stale note names may be anybody's by now."""
    other = tmp_path / "other"
    (other / "run").mkdir(parents=True)
    (other / "run" / "supervisor.json").write_text((tmp_path / "run" / "supervisor.json").read_text())
    assert not end_leftovers(Settings.from_env({"PODIUM_DIR": str(other)}))
    assert all(process.poll() is None for process in started.values())


async def test_a_process_is_kept_running_while_nothing_can_be_written_down(
    settings: Settings, tmp_path: Path
) -> None:
    """etcd is the first to die of a full disk; who restarts it must not have died of that before."""
    ran = tmp_path / "ran"
    (tmp_path / "logs").mkdir()
    (settings.run_dir / "supervisor.json.new").mkdir()  # as good as no room
    program = Program("etcd", ("sh", "-c", f"echo once >> {ran}"), None)

    keeping = asyncio.create_task(Supervisor(settings)._keep(program))
    async with asyncio.timeout(10):
        while not ran.exists() or ran.read_text().count("once") < 2:
            await asyncio.sleep(0.02)

    keeping.cancel()
