"""Start and end the processes of proxy devices. They outlive this service and end with their instance.

A process is found again by its pid and the time it started, which lie in the device's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.files import replace_file
from core.state import codec
from services.runtime.devices import sockets
from services.runtime.domain.devices.plan import End, Forward
from services.runtime.domain.idmaps import IdMap

_PROGRAM = Path(__file__).with_name("forwarder.py")
_NOBODY = 65534
_START_S = 10.0
_END_S = 5.0


@dataclass(frozen=True)
class _Process:
    pid: int = 0
    started: int = 0
    socket_dev: int = 0
    socket_ino: int = 0


def start(forward: Forward, folder: Path, guest: int, idmap: IdMap, label: str) -> None:
    """Start the process for *forward*; when this returns, it takes connections. Raises: OSError.

    *guest* is the instance's /proc folder, *folder* that of the device.
    """
    listening = sockets.listening(forward.listen, guest, idmap)
    try:
        dev, ino = sockets.identity(forward.listen, listening[0], guest)
        _note(folder, _Process(socket_dev=dev, socket_ino=ino))
        control, theirs = socket.socketpair()
        with control, theirs, _handles(forward.connect, guest) as (root, net, init):
            description = _description(forward, listening, theirs.fileno(), root, init)
            fds = [sock.fileno() for sock in listening] + [theirs.fileno(), init]
            fds += [fd for fd in (root, net) if fd >= 0]
            argv = [*_argv(forward.connect, net, idmap), json.dumps(description), label]
            child = _spawn(argv, fds)
            theirs.close()
            control.settimeout(_START_S)
            if control.recv(1) != b"r":
                raise OSError(f"the forwarder did not start: {_last_words(child)}")
            _note(folder, _Process(child.pid, _started(child.pid), dev, ino))
            control.sendall(b"g")
    finally:
        for sock in listening:
            sock.close()


def stop(forward: Forward, folder: Path, guest: int) -> None:
    """End the process and remove its socket. Repeatable, also after half a start."""
    noted = _noted(folder)
    end(folder)
    if noted.socket_ino:
        sockets.remove(forward.listen, guest, (noted.socket_dev, noted.socket_ino))


def end(folder: Path) -> None:
    """End the process that was noted in *folder*, and wait for it. Repeatable."""
    if (process := open_process(folder)) is None:
        return
    try:
        signal.pidfd_send_signal(process.fd, signal.SIGKILL)
        select.select([process.fd], [], [], _END_S)
    finally:
        os.close(process.fd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.key[0], os.WNOHANG)  # ours, unless an earlier service started it


@dataclass(frozen=True)
class Handle:
    """A running process: key tells it from all others of this boot, fd becomes readable at its end."""

    key: tuple[int, int]
    fd: int


def open_process(folder: Path) -> Handle | None:
    """Return the process that was noted in *folder*; None when it does not run."""
    noted = _noted(folder)
    if not noted.pid:
        return None
    try:
        fd = os.pidfd_open(noted.pid)
    except OSError:
        return None
    if _started(noted.pid) != noted.started:
        os.close(fd)
        return None
    return Handle((noted.pid, noted.started), fd)


def is_alive(folder: Path) -> bool:
    noted = _noted(folder)
    return bool(noted.pid) and _started(noted.pid) == noted.started


@contextlib.contextmanager
def _handles(connect: End, guest: int) -> Iterator[tuple[int, int, int]]:
    """Yield descriptors of the guest's root and network (-1 where not needed), and of its init."""
    flags = os.O_PATH | os.O_CLOEXEC
    by_path = connect.protocol == "unix" and not connect.host.startswith("@")
    fds: list[int] = []
    try:
        root = net = -1
        if connect.is_inside and by_path:
            fds.append(root := os.open("root", flags | os.O_DIRECTORY, dir_fd=guest))
        elif connect.is_inside:
            fds.append(net := os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=guest))
        fds.append(init := os.pidfd_open(int(Path(os.readlink(f"/proc/self/fd/{guest}")).name)))
        os.stat("status", dir_fd=guest)  # it lives, so the number meant it
        yield root, net, init
    finally:
        for fd in fds:
            os.close(fd)


def _description(
    forward: Forward, listening: list[socket.socket], control: int, root: int, init: int
) -> dict[str, object]:
    ports = forward.connect.ports or (0,)
    pairs = [(sock.fileno(), ports[i] if len(ports) > 1 else ports[0]) for i, sock in enumerate(listening)]
    return {
        "protocol": forward.connect.protocol,
        "host": forward.connect.host,
        "root": root,
        "listen": pairs,
        "header": forward.proxy_protocol,
        "control": control,
        "init": init,
    }


def _argv(connect: End, net: int, idmap: IdMap) -> list[str]:
    """Enter the network in which it connects, give up everything, and become the one program."""
    uid, gid = _who(connect, idmap)
    argv = ["nsenter", f"--net=/proc/self/fd/{net}"] if net >= 0 else []
    argv += ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
    argv += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
    return [*argv, os.path.realpath(sys.executable), "-I", "-S", "-"]


def _who(connect: End, idmap: IdMap) -> tuple[int, int]:
    """A path is opened by somebody; addresses are not, so nobody does that."""
    if connect.protocol != "unix":
        return _NOBODY, _NOBODY
    return idmap.owner(connect.uid, connect.gid) if connect.is_inside else (connect.uid, connect.gid)


def _spawn(argv: list[str], fds: list[int]) -> subprocess.Popen[bytes]:
    with _PROGRAM.open("rb") as program:
        return subprocess.Popen(
            argv,
            stdin=program,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=fds,
            env={"PATH": os.defpath},
            cwd="/",
            start_new_session=True,
        )


def _last_words(child: subprocess.Popen[bytes]) -> str:
    child.kill()
    _, said = child.communicate(timeout=_END_S)
    return said.decode(errors="replace").strip()[-200:]


def _started(pid: int) -> int:
    """Return when *pid* started, in ticks since boot; 0 when it does not run. Source: proc(5), stat."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def _note(folder: Path, process: _Process) -> None:
    replace_file(folder / "process", codec.encode(process))


def _noted(folder: Path) -> _Process:
    try:
        return codec.decode(_Process, (folder / "process").read_bytes())
    except (OSError, ValueError):
        return _Process()
