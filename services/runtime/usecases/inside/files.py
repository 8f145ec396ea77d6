"""Files inside instances, running or stopped. Every path is resolved beneath the guest's root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import stat
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.errors import Invalid, NotFound, PodiumError, WrongState
from core.state import keys
from services.runtime.domain.idmaps import to_inside
from services.runtime.domain.target import Target
from services.runtime.kernel.beneath import is_mounted_on, open_beneath, parent_beneath
from services.runtime.kernel.fsids import made
from services.runtime.kernel.patience import Descriptor
from services.runtime.kernel.processes import open_root
from services.runtime.store import RuntimeStore
from services.runtime.usecases.host import Host

FILE, FOLDER, LINK = "file", "directory", "symlink"
_TOLD = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EBUSY}
_MOST_LISTED = 16 << 20
_CHUNK = 1 << 20
_AT_ONCE, _MOMENT_MS = 64, 5
_MOST_LINKS = 40  # the kernel's own bound; source: path_resolution(7)


@dataclass(frozen=True)
class Info:
    """A path as the guest sees it."""

    kind: str
    uid: int
    gid: int
    mode: int
    modified_at: float
    size: int = 0
    entries: tuple[str, ...] = ()
    target: bytes = b""


@dataclass(frozen=True)
class Header:
    """What to write. None: 0 for owner and group, 0644 or 0750 for the mode, of new entries."""

    kind: str = FILE
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    append: bool = False
    target: bytes = b""


_TRIES, _PAUSE_S = 40, 0.05


class Roots:
    """Descriptors of the roots of instances."""

    def __init__(self, store: RuntimeStore, host: Host) -> None:
        self._store = store
        self._host = host
        self._users: Counter[str] = Counter()
        # Who comes while the last one unmounts must not open the bare folder below the mount.
        self._turns: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def open(self, target: Target) -> AsyncIterator[Descriptor]:
        """Give a descriptor of the root; that of a stopped instance is mounted for the while."""
        self._users[target.id] += 1
        root: Descriptor | None = None
        try:
            if target.pid:
                root = Descriptor(_running_root(target))
            else:
                async with self._turn(target.id):
                    root = Descriptor(await self._mount(target))
            yield root
        finally:
            if root:
                root.close()
            await self._leave(target)

    def _turn(self, id: str) -> asyncio.Lock:
        return self._turns.setdefault(id, asyncio.Lock())

    async def _leave(self, target: Target) -> None:
        """Others who look at it keep the mount: a second one over the same layers would be another root."""
        self._users[target.id] -= 1
        if not target.pid and not self._users[target.id]:
            async with self._turn(target.id):
                if not self._users[target.id] and not self._is_owned(target):
                    with contextlib.suppress(PodiumError):
                        await self._host.rootfs.ensure_unmounted(target.id)
        if not self._users[target.id]:
            del self._users[target.id]
            self._turns.pop(target.id, None)

    async def _until_free(self, target: Target) -> None:
        """Wait a moment for an operation: it may have ended, for who watches it, before its owner knows."""
        for _ in range(_TRIES):
            if not self._is_owned(target):
                return
            await asyncio.sleep(_PAUSE_S)

    async def _mount(self, target: Target) -> int:
        await self._until_free(target)
        if self._is_owned(target) or target.status not in ("stopped", "error"):
            raise WrongState("BUSY_STATE", f"The instance is {target.status}; try again", about=target.name)
        path = await self._host.mount(self._store.instance(target.project, target.name).record)
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _is_owned(self, target: Target) -> bool:
        """Say whether an operation is at work on it: then the mount is not ours to remove."""
        entry = self._store.observed.get(keys.observed(target.id))
        return bool(entry and (entry.record.operation or entry.record.status in ("running", "frozen")))


def _running_root(target: Target) -> int:
    try:
        return open_root(target.pid, target.id, target.idmap)
    except OSError:
        raise WrongState(
            "NOT_RUNNING", "The instance ended this moment; try again", about=target.name
        ) from None


@contextlib.contextmanager
def _errors(path: str, verb: str = "open") -> Iterator[None]:
    """Turn what the kernel says about a guest's path into ours. *verb*: what LXD would have done by SFTP."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound("NO_FILE", "Not Found", about=path[:128]) from None
    except OSError as exc:
        raise _said(exc, path, verb) from exc


def _said(exc: OSError, path: str, verb: str = "open") -> Invalid:
    """LXD moves files by SFTP, and shows what its client says of it."""
    words = (exc.strerror or str(exc)).lower()
    shown = f"/{path.strip('/')[:128]}"
    text = f'sftp: "{verb} {shown}: {words}" (SSH_FX_FAILURE)'
    if exc.errno not in _TOLD:
        text = f"{exc.strerror}: {path[:128]}"
    return Invalid("FILE", text, about=path[:128])


def stat_path(root: int, target: Target, path: str) -> Info:
    with _errors(path, "lstat"):
        fd = _open_entry(root, path)
        try:
            return _info(fd, target)
        finally:
            os.close(fd)


def open_file(root: int, target: Target, path: str) -> tuple[Info, Descriptor | None]:
    """Return what *path* is and, for a file, a descriptor to read it."""
    info = stat_path(root, target, path)
    if info.kind != FILE:
        return info, None
    with _errors(path, "lstat"):
        fd = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Invalid("NOT_A_FILE", "It is no regular file", about=path[:128])
    return info, Descriptor(fd)


def _open_entry(root: int, path: str) -> int:
    """Open without following a link at the end, so that links can be shown."""
    if not path.strip("/"):
        return open_beneath(root, "/", os.O_PATH)
    return open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)


def _info(fd: int, target: Target) -> Info:
    found = os.fstat(fd)
    uid, gid = to_inside(target.idmap.uids, found.st_uid), to_inside(target.idmap.gids, found.st_gid)
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return Info(FOLDER, uid, gid, mode, found.st_mtime, entries=tuple(_entries(fd)))
    if stat.S_ISLNK(found.st_mode):
        return Info(LINK, uid, gid, mode, found.st_mtime, target=os.readlink(b"", dir_fd=fd))
    if stat.S_ISREG(found.st_mode):
        return Info(FILE, uid, gid, mode, found.st_mtime, size=found.st_size)
    raise Invalid("SPECIAL_FILE", "Devices, sockets and pipes cannot be transferred")


def _entries(fd: int) -> list[str]:
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        return sorted(name for name in _names(folder) if name.isprintable())
    finally:
        os.close(folder)


def _names(folder: int) -> Iterator[str]:
    """Raises: WrongState for more than one answer may hold; the guest decides how many there are."""
    size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            size += len(entry.name)
            if size > _MOST_LISTED:
                raise WrongState("TOO_MANY_ENTRIES", "The folder holds too many entries to be listed here")
            yield entry.name


def create(root: int, target: Target, path: str, header: Header) -> Descriptor | None:
    """Make what *header* says; return a descriptor to write to for files."""
    with _errors(path, "mkdir" if header.kind == FOLDER else "open"):
        if header.kind == FILE:
            path = _past_links(root, path)
        folder, name = parent_beneath(root, path)
        try:
            if header.kind == FOLDER:
                _make_folder(folder, name, target, header)
                return None
            if header.kind == LINK:
                _make_link(folder, name, path, target, header)
                return None
            return Descriptor(_make_file(root, folder, name, path, target, header))
        finally:
            os.close(folder)


def _past_links(root: int, path: str) -> str:
    """Return where the links at the end of *path* lead, even to nothing. Raises: OSError, Invalid."""
    for _ in range(_MOST_LINKS):
        folder, name = parent_beneath(root, path)
        try:
            link = os.readlink(name, dir_fd=folder)
        except OSError:  # it is none, or nothing yet
            return path
        finally:
            os.close(folder)
        path = link if link.startswith("/") else f"{path.rstrip('/').rpartition('/')[0]}/{link}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _own(fd: int, target: Target, header: Header, default_mode: int) -> None:
    os.fchown(fd, *target.idmap.owner(header.uid or 0, header.gid or 0))
    os.fchmod(fd, default_mode if header.mode is None else header.mode & 0o7777)


def _make_folder(folder: int, name: str, target: Target, header: Header) -> None:
    with contextlib.suppress(FileExistsError):
        made(lambda: os.mkdir(name, 0o700, dir_fd=folder), target.idmap.owner(0, 0))
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _own(fd, target, header, 0o750)
        finally:
            os.close(fd)


def _make_link(folder: int, name: str, path: str, target: Target, header: Header) -> None:
    if not header.target or b"\0" in header.target:
        raise Invalid("BAD_TARGET", "A symbolic link needs a target, without NUL in it", about=name)
    try:
        made(lambda: os.symlink(header.target, name, dir_fd=folder), target.idmap.owner(0, 0))
    except FileExistsError as exc:
        shown = header.target[:128].decode(errors="replace")
        raise _said(exc, path, f"symlink {shown}") from exc
    uid, gid = target.idmap.owner(header.uid or 0, header.gid or 0)
    os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)


def _make_file(root: int, folder: int, name: str, path: str, target: Target, header: Header) -> int:
    """Open an existing file, or make a new one at the very place.

    An existing one keeps owner and mode, as in LXD: the stock client sends those of its own file unasked.
    """
    target.idmap.owner(header.uid or 0, header.gid or 0)  # one that cannot be is refused in any case
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_APPEND if header.append else 0)
    try:
        fd = open_beneath(root, path, flags)
    except FileNotFoundError:
        new = flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = made(lambda: os.open(name, new, 0o600, dir_fd=folder), target.idmap.owner(0, 0))
        _own(fd, target, header, 0o644)
        return fd
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Invalid("NOT_A_FILE", "It is no regular file", about=path[:128])
    if not header.append:
        os.ftruncate(fd, 0)
    return fd


def delete(root: int, path: str) -> None:
    with _errors(path, "remove"):
        folder, name = parent_beneath(root, path)
        try:
            is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            if is_mounted_on(folder, name):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            os.rmdir(name, dir_fd=folder) if is_folder else os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)


def read(fd: int, path: str) -> bytes:
    with _errors(path):
        return os.read(fd, _CHUNK)


def pour(source: int, target: int, path: str) -> bool:
    """Move bytes between a file and a pipe, and return whether there may be more.

    It returns when the pipe stays full or empty for a moment: other ends may be slow, and this is done in
    a thread that others need.
    """
    pipe = select.poll()
    for fd, event in ((source, select.POLLIN), (target, select.POLLOUT)):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            pipe.register(fd, event)
    for _ in range(_AT_ONCE):
        try:
            if not _moved(source, target):
                return False
        except BlockingIOError:
            if not pipe.poll(_MOMENT_MS):
                return True
        except BrokenPipeError:
            return False  # nobody reads any more
        except OSError as exc:
            raise _said(exc, path) from exc
    return True


def _moved(source: int, target: int) -> int:
    try:
        return os.splice(source, target, _CHUNK, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
    # A file of /proc, /sys or the like, which takes no pages.
    data = os.read(source, _CHUNK)
    return os.write(target, data) if data else 0


def write_all(fd: int, path: str, data: bytes) -> None:
    view = memoryview(data)
    with _errors(path):
        while view:
            view = view[os.write(fd, view) :]
