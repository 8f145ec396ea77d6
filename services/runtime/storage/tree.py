"""Copy a tree of strangers' files between folders, whole or only what differs; and remove one.

Owners, modes, times, extended attributes, hard links, holes and devices (the whiteouts of overlays) are
kept. Every step goes through the handle of an open folder and follows no link: who changes either tree
meanwhile (a guest, or a session of files) can spoil the copy, but cannot lead us elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import WrongState
from services.runtime.kernel.beneath import open_beneath

_libc = ctypes.CDLL(None, use_errno=True)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting: what was a file when it was listed may be a pipe by now.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409
_CHUNK = 1 << 30
_MAX_DEPTH = 500


def copy_tree(source: Path, target: Path) -> None:
    """Make the folder *target* what *source* is; what is the same already stays. Repeatable, blocks.

    A file is the same when its size, time, mode, owner and attributes are. Raises: OSError, WrongState.
    """
    target.mkdir(mode=0o700, exist_ok=True)
    read = os.open(source, _FOLDER & ~os.O_NOFOLLOW)  # ours, and perhaps one by descriptor
    try:
        write = os.open(target, _FOLDER)
    except OSError:
        os.close(read)
        raise
    _Copy(read, write).run()


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, however deep guests made it. Nothing happens when it is not there."""
    _rm(str(folder), "/")


def _rm(name: str, folder: str) -> None:
    # Not by shutil.rmtree, which calls itself for each level.
    done = subprocess.run(["rm", "-rf", "--", name], capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise WrongState("STORAGE_FAILED", f"A volume could not be removed: {done.stderr.strip()[:200]}")


def sync(folder: Path) -> None:
    """Have all that was written to the file system of *folder* on its disk."""
    fd = os.open(folder, _FOLDER)
    try:
        if _libc.syncfs(ctypes.c_int(fd)):
            raise OSError(ctypes.get_errno(), "syncfs failed", str(folder))
    finally:
        os.close(fd)


@dataclass
class _Level:
    """A folder on the way down, and the names in it that are still to be copied."""

    read: int
    write: int
    path: tuple[str, ...] = ()
    names: list[str] = field(default_factory=list)

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


class _Copy:
    """Not recursive: guests decide how deep their folders go."""

    def __init__(self, read: int, write: int) -> None:
        self._root = write
        self._levels = [_entered(_Level(read, write))]
        self._first: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        try:
            while self._levels:
                self._step(self._levels[-1])
        finally:
            for level in self._levels:
                level.close()

    def _step(self, level: _Level) -> None:
        if level.names:
            with contextlib.suppress(FileNotFoundError):  # the guest removed it meanwhile
                self._entry(level, level.names.pop())
            return
        _settle(level, ".")  # last, since its time changes with each entry
        self._levels.pop().close()

    def _entry(self, level: _Level, name: str) -> None:
        wanted, found = os.lstat(name, dir_fd=level.read), _find(level.write, name)
        if found and stat.S_IFMT(found.st_mode) != stat.S_IFMT(wanted.st_mode):
            _remove(level.write, name)
            found = None
        if stat.S_ISDIR(wanted.st_mode):
            self._enter(level, name, is_new=found is None)
        elif not self._is_linked(level, name, wanted) and not _is_same(level, name, wanted, found):
            if found:
                os.unlink(name, dir_fd=level.write)
            _make(level, name, wanted)
            _settle(level, name)

    def _enter(self, level: _Level, name: str, *, is_new: bool) -> None:
        if len(level.path) >= _MAX_DEPTH:
            raise WrongState("TOO_DEEP", f"Folders nested more than {_MAX_DEPTH} deep cannot be copied")
        read = os.open(name, _FOLDER, dir_fd=level.read)
        try:
            if is_new:
                os.mkdir(name, 0o700, dir_fd=level.write)
            write = os.open(name, _FOLDER, dir_fd=level.write)
        except OSError:
            os.close(read)
            raise
        self._levels.append(_entered(_Level(read, write, (*level.path, name))))

    def _is_linked(self, level: _Level, name: str, wanted: os.stat_result) -> bool:
        """Give a further name to the copy of an inode that has one already; say whether that was it."""
        if wanted.st_nlink < 2:
            return False
        path = "/".join((*level.path, name))
        first = self._first.setdefault((wanted.st_dev, wanted.st_ino), path)
        if first == path:
            return False
        if _find(level.write, name):
            os.unlink(name, dir_fd=level.write)
        place = open_beneath(self._root, first, os.O_PATH | os.O_NOFOLLOW)
        try:
            os.link(f"/proc/self/fd/{place}", name, dst_dir_fd=level.write, follow_symlinks=True)
        finally:
            os.close(place)
        return True


def _entered(level: _Level) -> _Level:
    """Remove from the copy what the original does not have, and note what there is to copy."""
    level.names = sorted(os.listdir(level.read), reverse=True)
    for name in set(os.listdir(level.write)).difference(level.names):
        _remove(level.write, name)
    return level


def _find(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None


def _remove(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        # By no path that begins at the host's root: a link may stand in the way by the time it is walked.
        _rm(name, f"/proc/{os.getpid()}/fd/{folder}")


def _make(level: _Level, name: str, wanted: os.stat_result) -> None:
    kind = stat.S_IFMT(wanted.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(level, name)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=level.read), name, dir_fd=level.write)
    else:
        os.mknod(name, kind | 0o600, wanted.st_rdev, dir_fd=level.write)


def _copy_file(level: _Level, name: str) -> None:
    try:
        old = os.open(name, _READ, dir_fd=level.read)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "It was replaced meanwhile", name) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(old).st_mode):
            raise FileNotFoundError(errno.ENOENT, "It was replaced meanwhile", name)
        new = os.open(name, _NEW, 0o600, dir_fd=level.write)
        try:
            _copy_content(old, new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_content(old: int, new: int) -> None:
    """Share the blocks where the file system can; else copy those that hold something."""
    try:
        fcntl.ioctl(new, _FICLONE, old)
        return
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
            raise
    size = os.fstat(old).st_size
    for start, end in _filled(old, size):
        _copy_range(old, new, start, end)
    os.ftruncate(new, size)


def _filled(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file that are no holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only holes from here on
                return
            raise
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, at


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        try:
            done = os.copy_file_range(old, new, min(end - start, _CHUNK), start, start)
        except OSError as exc:
            if exc.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            os.lseek(new, start, os.SEEK_SET)
            done = os.sendfile(new, old, start, min(end - start, _CHUNK))
        if not done:  # it became shorter meanwhile
            return
        start += done


def _is_same(level: _Level, name: str, wanted: os.stat_result, found: os.stat_result | None) -> bool:
    if found is None or _shape(wanted) != _shape(found):
        return False
    if stat.S_ISLNK(wanted.st_mode):
        return os.readlink(name, dir_fd=level.read) == os.readlink(name, dir_fd=level.write)
    return _attributes(level.read, name) == _attributes(level.write, name)


def _shape(s: os.stat_result) -> tuple[int, ...]:
    return s.st_mode, s.st_uid, s.st_gid, s.st_rdev, s.st_size, s.st_mtime_ns, s.st_nlink


def _settle(level: _Level, name: str) -> None:
    """Give a copy what its original has besides content."""
    found = os.lstat(name, dir_fd=level.read)
    os.chown(name, found.st_uid, found.st_gid, dir_fd=level.write, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        _chmod(level.write, name, stat.S_IMODE(found.st_mode))
    # After its owner, a change of which takes capabilities away.
    wanted, has = _attributes(level.read, name), _attributes(level.write, name)
    for key in has.keys() - wanted.keys():
        os.removexattr(_place(level.write, name), key, follow_symlinks=False)
    for key, value in wanted.items():
        if has.get(key) != value:
            os.setxattr(_place(level.write, name), key, value, follow_symlinks=False)
    times = (found.st_atime_ns, found.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=level.write, follow_symlinks=False)


def _chmod(folder: int, name: str, mode: int) -> None:
    """Set the mode of what is there, if that is no link."""
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISLNK(os.fstat(place).st_mode):
            os.chmod(f"/proc/self/fd/{place}", mode)
    finally:
        os.close(place)


def _attributes(folder: int, name: str) -> dict[str, bytes]:
    place = _place(folder, name)
    try:
        keys = os.listxattr(place, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:  # a squashfs without any
            return {}
        raise
    found = {}
    for key in keys:
        try:
            found[key] = os.getxattr(place, key, follow_symlinks=False)
        except OSError as exc:
            # Capabilities that an archive brought and that are none: the kernel does not show them.
            if exc.errno not in (errno.EINVAL, errno.ENODATA):
                raise
    return found


def _place(folder: int, name: str) -> str:
    """Return a path to an entry that leads through the open folder itself, wherever that is by now."""
    return f"/proc/self/fd/{folder}/{name}"
