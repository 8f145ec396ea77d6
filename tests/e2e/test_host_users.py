"""What a guest leaves in its files is out of reach for the host's own unprivileged users.

Images and layers hold the guest's ids unshifted: a setuid-root file of a guest is one of the host
(the class of CVE-2025-64507).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Podium

NAME = "suid1"
# Through a shell: setpriv itself may still hold root's capabilities when it looks the program up.
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "sh", "-c", 'exec "$0" "$@"']


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[Podium]:
    podium.lxc("launch", "debian/12", NAME)
    podium.lxc("exec", NAME, "--", "sh", "-c", "cp /usr/bin/id /trap; chmod 4755 /trap; chmod 755 /")
    yield podium
    podium.lxc("delete", "--force", NAME)


def traps(state: Path) -> list[Path]:
    """Every path at which root finds the guest's file, and the image's own setuid files."""
    found = [Path(folder) / "trap" for folder, _, files in os.walk(state) if "trap" in files]
    return found + list(state.glob("mounted/*/**/usr/bin/su"))


def test_a_setuid_file_of_a_guest_gives_a_host_user_nothing(guest: Podium) -> None:
    paths = traps(guest.state_dir)
    assert len(paths) >= 3, "in its layer, in its root, and in the image"

    for path in paths:
        done = subprocess.run([*NOBODY, str(path)], capture_output=True, text=True, timeout=10, check=False)
        assert "Permission denied" in done.stderr, f"{path}: {done.stdout}"


def test_inside_the_guest_setuid_works_as_on_any_machine(guest: Podium) -> None:
    """sudo and ping need it."""
    output = guest.lxc("exec", NAME, "--", "setpriv", "--reuid=65534", "--", "/trap")

    assert "euid=0(root)" in output


def test_a_host_user_reads_nothing_below_the_state_folder(guest: Podium) -> None:
    """Sockets, keys, logs, layers: each is closed, whoever knows its name."""
    argv = ["find", str(guest.state_dir), "-mindepth", "1", "-readable", "-not", "-path", "*/instances/*"]

    done = subprocess.run([*NOBODY, *argv], capture_output=True, text=True, timeout=60, check=False)

    readable = {Path(line).relative_to(guest.state_dir).parts[0] for line in done.stdout.splitlines()}
    assert readable <= {"engine", "app"}, "hook, policy and code are no secret"


_ASK = """
import os, socket, struct, sys
for command in range(24):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect("\\0" + sys.argv[1])
        s.sendmsg([struct.pack("iiQ", command, 0, 0)], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS,
            struct.pack("3i", os.getpid(), os.getuid(), os.getgid()))])
        try:
            answer, fds, _, _ = s.recvmsg(4096, 4096)
        except OSError:
            continue
        assert not answer or struct.unpack_from("i", answer)[0] < 0, (command, answer)
        assert not fds, (command, fds)
print("asked")
"""


def test_a_host_user_gets_nothing_from_the_engines_socket(guest: Podium) -> None:
    """liblxc listens at an abstract name, which has no mode: anybody connects, and must be told nothing."""
    names = [
        line.split()[-1][1:] for line in Path("/proc/net/unix").read_text().splitlines() if "/command" in line
    ]
    own = [name for name in names if name.startswith(str(guest.state_dir))]
    assert own

    argv = [*NOBODY, "/usr/bin/python3", "-c", _ASK, own[0]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False)

    assert done.stdout == "asked\n", done.stderr
    assert "RUNNING" in guest.lxc("list", NAME, "--format", "csv", "-c", "s")
