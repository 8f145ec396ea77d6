"""Files of an lxcfs in a mount namespace. Plain files play its own where only the mounts count."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.settings import Settings
from deploy import lxcfs
from services.runtime.kernel.lxcfs import FILES, Lxcfs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "lxcfs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    for name in FILES[:-1]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"ours: {name}\n")
    (folder / FILES[-1]).mkdir(parents=True)
    (folder / FILES[-1] / "online").write_text("0\n")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def guest() -> Iterator[int]:
    """Give the /proc folder of a process with mounts of its own."""
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    fd = os.open(f"/proc/{process.pid}", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    process.kill()
    process.wait()


def _read(guest: int, name: str) -> str:
    with open(os.open(f"root/{name}", os.O_RDONLY, dir_fd=guest)) as file:
        return file.read()


def _own_mounts(guest: int) -> list[str]:
    with open(os.open("mounts", os.O_RDONLY, dir_fd=guest)) as file:
        return [line.split()[1] for line in file if line.split()[1].startswith(("/proc/", "/sys/devices/"))]


def test_the_guest_sees_them_once_and_the_host_not_at_all(served: Path, guest: int) -> None:
    host_figures = Path("/proc/meminfo").read_text().split()[:2]
    files = Lxcfs(served.parent / "none", served)
    for _ in range(3):
        files.attach(guest)
    mounts = _own_mounts(guest)
    assert {f"/{name}" for name in FILES if Path(f"/{name}").exists()} <= set(mounts)
    assert mounts.count("/proc/meminfo") == 1
    assert _read(guest, "proc/meminfo") == "ours: proc/meminfo\n"
    assert Path("/proc/meminfo").read_text().split()[:2] == host_figures
    files.close()


def test_one_that_was_started_anew_takes_the_place_of_the_dead(
    served: Path, guest: int, tmp_path: Path
) -> None:
    files = Lxcfs(served)
    files.attach(guest)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", served], check=True)
    (served / "proc").mkdir()
    (served / FILES[3]).write_text("new\n")
    (served / FILES[0]).write_text("new\n")
    files.attach(guest)
    assert _read(guest, FILES[3]) == "new\n"
    files.close()
    subprocess.run(["umount", "-l", served], check=True)


def test_without_an_lxcfs_nothing_happens(tmp_path: Path, guest: int) -> None:
    Lxcfs(tmp_path / "none").attach(guest)
    assert not [path for path in _own_mounts(guest) if path.endswith("meminfo")]


def test_what_a_guest_mounts_upon_them_stays_inside(served: Path, guest: int) -> None:
    """Hosts share their mounts by default; then those of one guest would reach all others and the host."""
    subprocess.run(["mount", "--make-shared", served], check=True)
    files = Lxcfs(served)
    files.attach(guest)
    enter = ["nsenter", f"--mount=/proc/self/fd/{guest}/ns/mnt"]
    for source, target in (("/etc/hosts", "/proc/meminfo"), ("/etc", f"/{FILES[-1]}")):
        subprocess.run([*enter, "mount", "--bind", source, target], check=True, pass_fds=[guest])
    assert _read(guest, "proc/meminfo") == Path("/etc/hosts").read_text()
    assert (served / "proc" / "meminfo").read_text() == "ours: proc/meminfo\n"
    assert (served / FILES[-1] / "online").read_text() == "0\n"
    files.close()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Settings]:
    """Give the settings of a member with an lxcfs of its own."""
    if not shutil.which("lxcfs") or lxcfs.serves(lxcfs.HOST):
        pytest.skip("needs lxcfs, and a host without one of its own")
    (tmp_path / "logs").mkdir()
    settings = replace(Settings.from_env(), state_dir=tmp_path)
    assert lxcfs.ensure(settings)
    yield settings
    lxcfs.stop(settings)


def test_files_of_a_dead_lxcfs_are_taken_out_and_those_of_the_next_put_in(real: Settings, guest: int) -> None:
    """Whatever reads /proc/meminfo inside would fail until the instance is started anew."""
    files, folder = Lxcfs(real.state_dir / "lxcfs"), real.state_dir / "lxcfs"
    files.attach(guest)
    first, mounts = files.serving(), _own_mounts(guest)
    assert "/proc/meminfo" in mounts

    os.kill(int((real.state_dir / "lxcfs.pid").read_text()), 9)
    while lxcfs.serves(folder):
        pass
    with pytest.raises(OSError, match="not connected"):
        _read(guest, "proc/meminfo")
    assert not files.serving()
    files.attach(guest)
    assert not _own_mounts(guest)
    assert "MemTotal" in _read(guest, "proc/meminfo")

    assert lxcfs.ensure(real)
    assert files.serving() not in (0, first)
    for _ in range(2):
        files.attach(guest)
    assert _own_mounts(guest) == mounts
    assert "MemTotal" in _read(guest, "proc/meminfo")
    files.close()
