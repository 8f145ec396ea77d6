"""Open the listening sockets of a proxy device, on the host's side or inside the guest.

Inside, a thread of its own enters the guest's network namespace or, for a path, its mount namespace.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from core.libc import libc, or_raise
from services.runtime.devices import inside
from services.runtime.domain.devices.plan import End
from services.runtime.domain.idmaps import IdMap
from services.runtime.kernel.beneath import open_beneath
from services.runtime.kernel.fsids import acting_as

_BACKLOG = 512
_CLONE_NEWNET = 0x40000000
_AT_EMPTY_PATH = 0x1000
_PATH = os.O_PATH | os.O_CLOEXEC


def listening(end: End, guest: int, idmap: IdMap) -> list[socket.socket]:
    """Return a socket per port, in order; one for a unix socket. *guest*: its /proc folder.

    Raises: OSError with a sentence as LXD's.
    """
    if end.protocol != "unix":
        return _in_netns(end, guest, lambda: _all(end))
    if end.host.startswith("@"):
        return _in_netns(end, guest, lambda: [_bound("\0" + end.host[1:], socket.AF_UNIX)])
    if end.is_inside:
        return [inside.within(guest, lambda root: _unix_inside(end, root, idmap))]
    return [_unix(end)]


def remove(end: End, guest: int, socket_id: tuple[int, int]) -> None:
    """Remove the file of a unix socket if it is still the one that was made. Repeatable."""
    if end.protocol != "unix" or end.host.startswith("@"):
        return
    with contextlib.suppress(OSError):
        if end.is_inside:
            inside.within(guest, lambda root: _remove_beneath(root, end.host, socket_id))
        else:
            _remove(end.host, socket_id)


def identity(end: End, sock: socket.socket, guest: int) -> tuple[int, int]:
    """Return device and inode of the socket's file; zeros when it has none."""
    if end.protocol != "unix" or end.host.startswith("@"):
        return 0, 0
    if not end.is_inside:
        found = os.lstat(end.host)
        return found.st_dev, found.st_ino
    return inside.within(guest, lambda root: _identity_beneath(root, end.host))


def _in_netns(end: End, guest: int, work: Callable[[], list[socket.socket]]) -> list[socket.socket]:
    if not end.is_inside:
        return work()
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(_joined, guest, work).result()


def _joined(guest: int, work: Callable[[], list[socket.socket]]) -> list[socket.socket]:
    fd = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=guest)
    try:
        or_raise(libc.setns(fd, _CLONE_NEWNET))
    finally:
        os.close(fd)
    return work()


def _all(end: End) -> list[socket.socket]:
    made: list[socket.socket] = []
    try:
        for port in end.ports:
            made.append(_ip(end, port))
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


def _ip(end: End, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in end.host else socket.AF_INET
    kind = socket.SOCK_DGRAM if end.protocol == "udp" else socket.SOCK_STREAM
    shown = f"[{end.host}]:{port}" if family == socket.AF_INET6 else f"{end.host}:{port}"
    try:
        return _bound((end.host, port), family, kind)
    except OSError as exc:
        raise _listen_failed(shown, end.protocol, shown, exc) from None


def _bound(address: object, family: int, kind: int = socket.SOCK_STREAM, *, mode: int = 0) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        if mode:
            os.fchmod(sock.fileno(), mode)
        if kind == socket.SOCK_STREAM and family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Go's servers take both families on the wildcard address; so does LXD.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_failed(shown: str, protocol: str, address: str, exc: OSError) -> OSError:
    why = os.strerror(exc.errno).lower() if exc.errno else str(exc)
    return OSError(exc.errno, f"Failed to listen on {shown}: listen {protocol} {address}: bind: {why}")


def _unix(end: End) -> socket.socket:
    """Users of the host may own the folder: what they put in its place must not become theirs."""
    sock = _at_path(end.host, end.host)
    place = os.open(end.host, _PATH | os.O_NOFOLLOW)
    try:
        if _is_new(place, os.geteuid()):
            os.chmod(f"/proc/self/fd/{place}", end.mode)
            os.chown(f"/proc/self/fd/{place}", end.uid, end.gid)
    finally:
        os.close(place)
    return sock


def _is_new(place: int, maker: int) -> bool:
    found = os.fstat(place)
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == maker and found.st_nlink == 1


def _at_path(path: str, shown: str, mode: int = 0) -> socket.socket:
    """Return a listening socket at *path*; with a mode its file has that from the beginning."""
    _remove_stale(path)
    try:
        return _bound(path, socket.AF_UNIX, mode=mode)
    except OSError as exc:
        raise _listen_failed(shown, "unix", shown, exc) from None


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at, as a killed process leaves it."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except OSError as exc:
        if exc.errno == errno.ECONNREFUSED:
            os.unlink(path)


@contextlib.contextmanager
def _folder_of(root: int, path: str) -> Iterator[str]:
    """Make the folder of *path* the calling thread's own, and yield the last part."""
    folder, _, name = ("/" + path.strip("/")).rpartition("/")
    fd = open_beneath(root, folder or "/", _PATH | os.O_DIRECTORY)
    try:
        os.fchdir(fd)
        yield name
    finally:
        os.close(fd)


def _unix_inside(end: End, root: int, idmap: IdMap) -> socket.socket:
    """The guest may swap what lies in the folder meanwhile, so its name is used once."""
    with _folder_of(root, end.host) as name:
        os.umask(0)  # of this thread, as its folder is
        with acting_as(*idmap.root):
            sock = _at_path(name, end.host, end.mode)
        _give(name, idmap.root[0], *idmap.owner(end.uid, end.gid))
    return sock


def _give(name: str, maker: int, uid: int, gid: int) -> None:
    """Give what was made a moment ago to its owner."""
    place = os.open(name, _PATH | os.O_NOFOLLOW)
    try:
        if _is_new(place, maker):
            or_raise(libc.fchownat(place, b"", uid, gid, _AT_EMPTY_PATH))
    finally:
        os.close(place)


def _identity_beneath(root: int, path: str) -> tuple[int, int]:
    with _folder_of(root, path) as name:
        found = os.lstat(name)
        return found.st_dev, found.st_ino


def _remove_beneath(root: int, path: str, socket_id: tuple[int, int]) -> None:
    with _folder_of(root, path) as name:
        _remove(name, socket_id)


def _remove(path: str, socket_id: tuple[int, int]) -> None:
    found = os.lstat(path)
    if stat.S_ISSOCK(found.st_mode) and (found.st_dev, found.st_ino) == socket_id:
        os.unlink(path)
