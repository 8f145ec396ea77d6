"""The kernel's mount API by system call: id-mapped clones, and overlays whose layers are descriptors.

util-linux of Debian 12 knows neither. Numbers are those of the generic syscall table (x86_64, aarch64).
Source: open_tree(2), mount_setattr(2), fsopen(2); Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from core.errors import Unsupported
from core.libc import libc, or_raise, syscall
from services.runtime.domain.idmaps import EVERY, IdMap

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_CLONE, _CLOEXEC = 1, os.O_CLOEXEC
_MOVE_EMPTY_PATH, _MOVE_EMPTY_TARGET = 0x4, 0x40
_ATTR_IDMAP = 0x100000
_SET_STRING, _SET_FD, _CMD_CREATE = 1, 5, 6
_ATTR_READ_ONLY, _ATTR_NO_SUID_DEV_EXEC = 0x1, 0xE
_MNT_DETACH = 2
_RECURSIVE, _REC = 0x8000, 0x4000
_MOVE_TO_EMPTY_PATH = 0x40
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_STATX_ATTR_MOUNT_ROOT = 0x2000
_AT_STATX_FORCE_SYNC, _STATX_SIZE = 0x2000, 0x200
# mount_setattr(2); a time policy replaces the one that is there.
_ATTR_ATIME = 0x70
_OPTIONS = {
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
}
_TIMES = frozenset({"relatime", "noatime", "strictatime"})
_PROPAGATIONS = {"unbindable": 1 << 17, "private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def _text(value: str) -> ctypes.c_char_p:
    return ctypes.c_char_p(value.encode())


@contextlib.contextmanager
def descriptors() -> Iterator[list[int]]:
    """Yield a list; what is put into it is closed at the end."""
    fds: list[int] = []
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


class UserNamespaces:
    """User namespaces by id range, kept while this process lives: making one costs 2 ms, its copy nothing."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._kept: dict[tuple[IdMap, int, bool], int] = {}
        self._lock = threading.Lock()

    def get(self, idmap: IdMap, shift: int = 0, *, with_root: bool = True) -> int:
        """Return a descriptor of its own, to be closed by the caller."""
        key = (idmap, shift, with_root)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = user_namespace(idmap, shift, with_root=with_root)
                if len(self._kept) > self._most:
                    os.close(self._kept.pop(next(iter(self._kept))))
            return os.dup(self._kept[key])


def host_root(idmap: IdMap) -> int:
    """Return the id on disk of what the host's root makes in id-mapped layers: the first that nobody has."""
    if idmap.is_privileged:
        return 0
    return max((r.inside + r.count for r in (*idmap.uids, *idmap.gids)), default=0)


def user_namespace(idmap: IdMap, shift: int = 0, *, with_root: bool = True) -> int:
    """Return a descriptor of a user namespace with that map, for files whose ids were moved by *shift*.

    The id after them maps host root: overlayfs makes its work folder with the mounter's
    credentials. Not what is only read: an image with setuid files of that id would have some of the
    host's root. The namespace is made by a child process, since this one has threads.
    """
    child = subprocess.Popen(
        ["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert child.stdin and child.stdout
    try:
        child.stdin.write(b".")
        child.stdout.read(1)  # the echo comes from cat, so unshare is done
        for name, ranges in (("uid_map", idmap.uids), ("gid_map", idmap.gids)):
            rows = [(r.inside + shift, r.host, min(r.count, EVERY - shift)) for r in ranges]
            rows += [(host_root(idmap) + shift, 0, 1)] if with_root and not idmap.is_privileged else []
            table = "".join(f"{inside} {host} {count}\n" for inside, host, count in rows)
            Path(f"/proc/{child.pid}/{name}").write_text(table)
        return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def open_tree(path: Path, *, recursive: bool = False) -> int:
    """Return a descriptor of a detached copy of the mount at *path*, or of a part of it."""
    flags = _CLONE | _CLOEXEC | (_RECURSIVE if recursive else 0)
    return syscall(_OPEN_TREE, ctypes.c_int(_AT_FDCWD), _text(str(path)), ctypes.c_uint(flags))


def open_place(tree: int, name: str) -> int:
    """Return a descriptor of what is mounted at *name* below *tree*, ready to be moved."""
    flags = ctypes.c_uint(_CLOEXEC)
    return syscall(_OPEN_TREE, ctypes.c_int(tree), _text(name), flags)


def make_private() -> None:
    """Let nothing that the calling thread mounts or unmounts from now on reach another namespace."""
    or_raise(libc.mount(None, b"/", None, _REC | _PROPAGATIONS["private"], None))


def open_tree_at(place: int, *, recursive: bool = False) -> int:
    """Do the same for what a descriptor was opened upon."""
    flags = _CLONE | _CLOEXEC | _AT_EMPTY_PATH | (_RECURSIVE if recursive else 0)
    return syscall(_OPEN_TREE, ctypes.c_int(place), _text(""), ctypes.c_uint(flags))


def set_attributes(
    tree: int,
    *,
    read_only: bool = False,
    userns: int = -1,
    propagation: str = "",
    recursive: bool = False,
    suid: bool = False,
    inert: bool = False,
    options: Iterable[str] = (),
) -> None:
    """Change a detached mount: what is given is set, the rest stays. propagation: as mount(8) calls it.

    *suid* gives power back to setuid files; *inert* takes it from them, from devices and from programs.
    *options* are set besides, as mount(8) calls them; others than those of a mount are passed over.
    Raises: OSError.
    """
    attr = _MountAttr(0, 0, _PROPAGATIONS.get(propagation.removeprefix("r"), 0), max(userns, 0))
    attr.attr_clr |= _ATTR_NOSUID if suid else 0
    attr.attr_set |= _ATTR_RDONLY if read_only else 0
    attr.attr_set |= _ATTR_NO_SUID_DEV_EXEC if inert else 0
    attr.attr_set |= _ATTR_IDMAP if userns >= 0 else 0
    for option in options:
        attr.attr_set |= _OPTIONS.get(option, 0)
        attr.attr_clr |= _ATTR_ATIME if option in _TIMES else 0
    syscall(
        _MOUNT_SETATTR,
        ctypes.c_int(tree),
        _text(""),
        ctypes.c_uint(_AT_EMPTY_PATH | (_RECURSIVE if recursive else 0)),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )


def move(tree: int, target: int) -> None:
    """Put a detached mount at the place that the descriptor *target* stands for."""
    flags = _MOVE_EMPTY_PATH | _MOVE_TO_EMPTY_PATH
    syscall(
        _MOVE_MOUNT,
        ctypes.c_int(tree),
        _text(""),
        ctypes.c_int(target),
        _text(""),
        ctypes.c_uint(flags),
    )


def is_mount_root(place: int) -> bool:
    """Return whether something is mounted where the descriptor *place* was opened."""
    answer = (ctypes.c_uint64 * 32)()
    or_raise(libc.statx(place, b"", _AT_EMPTY_PATH, 0, ctypes.byref(answer)))
    return bool(answer[1] & _STATX_ATTR_MOUNT_ROOT)


def ask(place: int) -> None:
    """Have the file system answer for *place* now, not from what it said before. Raises: OSError."""
    answer = (ctypes.c_uint64 * 32)()
    flags = _AT_EMPTY_PATH | _AT_STATX_FORCE_SYNC
    or_raise(libc.statx(place, b"", flags, _STATX_SIZE, ctypes.byref(answer)))


def unmount_place(proc: int, place: int) -> None:
    """Unmount (lazily) what *place* was opened upon; *proc* is a descriptor of the host's /proc.

    Changes the calling thread's working folder: only for threads that share theirs with nobody.
    """
    os.fchdir(proc)
    or_raise(libc.umount2(f"thread-self/fd/{place}".encode(), _MNT_DETACH))


def _idmapped(path: Path, userns: int | None) -> int:
    fd = open_tree(path)
    if userns is None:
        return fd
    try:
        set_attributes(fd, userns=userns)
    except OSError:
        os.close(fd)
        raise
    return fd


def _set_fd(fs: int, key: str, fd: int) -> None:
    syscall(_FSCONFIG, ctypes.c_int(fs), ctypes.c_uint(_SET_FD), _text(key), None, ctypes.c_int(fd))


def _set_text(fs: int, key: str, value: str) -> None:
    kind = ctypes.c_uint(_SET_STRING)
    syscall(_FSCONFIG, ctypes.c_int(fs), kind, _text(key), _text(value), ctypes.c_int(0))


def mount_overlay(
    lower: Path,
    data: Path,
    target: Path,
    userns: int | None,
    *,
    lower_userns: int | None = None,
    devices: bool = True,
) -> None:
    """Mount overlay(lower, data/upper) at *target*, both layers id-mapped; nothing is chowned.

    Without *userns* a layer keeps the ids it has on disk: that is for privileged instances.
    *lower_userns* maps the ids of *lower*, where they are others than those of *data*.
    Without *devices* nobody opens device nodes that lie in it.

    Raises: Unsupported on kernels that do not take layers as descriptors (before 6.15).
    """
    with descriptors() as fds:
        fs = syscall(_FSOPEN, _text("overlay"), ctypes.c_uint(1))
        fds.append(fs)
        fds.append(_idmapped(lower, userns if lower_userns is None else lower_userns))
        try:
            _set_fd(fs, "lowerdir+", fds[-1])
        except OSError as exc:
            raise Unsupported(
                "OLD_KERNEL", f"This kernel cannot mount id-mapped overlay layers ({exc}); 6.15 or newer can"
            ) from exc
        base = _idmapped(data, userns)
        fds.append(base)
        for key, name in (("upperdir", "upper"), ("workdir", "work")):
            fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
            fds.append(fd)
            _set_fd(fs, key, fd)
        syscall(_FSCONFIG, ctypes.c_int(fs), ctypes.c_uint(_CMD_CREATE), None, None, ctypes.c_int(0))
        attributes = ctypes.c_uint(0 if devices else _ATTR_NODEV)
        mount = syscall(_FSMOUNT, ctypes.c_int(fs), ctypes.c_uint(1), attributes)
        fds.append(mount)
        syscall(
            _MOVE_MOUNT,
            ctypes.c_int(mount),
            _text(""),
            ctypes.c_int(_AT_FDCWD),
            _text(str(target)),
            ctypes.c_uint(_MOVE_EMPTY_PATH),
        )


def unmount(path: Path) -> None:
    """Unmount all that is mounted on *path* (lazily); nothing happens when it is no mount."""
    while not libc.umount2(str(path).encode(), _MNT_DETACH):
        pass
    if (error := ctypes.get_errno()) not in (22, 2):
        raise OSError(error, os.strerror(error), str(path))


def is_mount(path: Path) -> bool:
    return os.path.ismount(path)


def detached(kind: str, layers: Sequence[int] = (), *, read_only: bool = False, size: int = 0) -> int:
    """Return a new mount that has no place: it is seen through this descriptor alone, and ends with it.

    *layers*: the folders of an overlay, uppermost first, as descriptors. *size*: most bytes of a tmpfs.
    """
    with descriptors() as fds:
        fs = syscall(_FSOPEN, _text(kind), ctypes.c_uint(1))
        fds.append(fs)
        options = {} if layers else {"mode": "0755"}
        if size:
            options |= {"size": str(size), "nr_inodes": "4096"}
        for key, value in options.items():
            _set_text(fs, key, value)
        for layer in layers:
            _set_fd(fs, "lowerdir+", layer)
        syscall(_FSCONFIG, ctypes.c_int(fs), ctypes.c_uint(_CMD_CREATE), None, None, ctypes.c_int(0))
        attributes = _ATTR_NO_SUID_DEV_EXEC | (_ATTR_READ_ONLY if read_only else 0)
        return syscall(_FSMOUNT, ctypes.c_int(fs), ctypes.c_uint(1), ctypes.c_uint(attributes))


def attach(mount: int, folder: int) -> None:
    """Put a detached mount onto *folder*, which may itself lie in a detached one (Linux 6.15)."""
    syscall(
        _MOVE_MOUNT,
        ctypes.c_int(mount),
        _text(""),
        ctypes.c_int(folder),
        _text(""),
        ctypes.c_uint(_MOVE_EMPTY_PATH | _MOVE_EMPTY_TARGET),
    )


def shifted(path: Path, userns: int) -> int:
    """Return *path* as a detached mount whose ids *userns* maps."""
    return _idmapped(path, userns)
