"""Answer SFTP requests with the files of this process's root. One request at a time, in order.

What is named is a place first, and opened only if it is a file in a store of files: images may hold
device nodes, which no cgroup keeps from us as it keeps the guest, and the kernel's own files would obey us.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from services.runtime.kernel.beneath import is_store
from services.runtime.sftp import wire
from services.runtime.sftp.wire import Attributes, BadPacket, Fields

_MOST_HANDLES = 200
_MOST_READ = 256 << 10
_NAMES_AT_ONCE = 100
_READS, _WRITES, _APPENDS, _CREATES, _TRUNCATES, _EXCLUSIVE = 1, 2, 4, 8, 16, 32
_EXTENSIONS = (
    (b"hardlink@openssh.com", b"1"),
    (b"posix-rename@openssh.com", b"1"),
    (b"statvfs@openssh.com", b"2"),
)
_CODES = {
    errno.ENOENT: wire.NO_SUCH_FILE,
    errno.ENOTDIR: wire.NO_SUCH_FILE,
    errno.EACCES: wire.PERMISSION_DENIED,
    errno.EPERM: wire.PERMISSION_DENIED,
}
# Opening must not wait for the other end of a pipe, nor take a terminal.
_ALWAYS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass
class _Folder:
    path: bytes
    entries: Iterator[bytes]


class Server:
    """Answers packets. Relative paths begin at the root. own: the folder /proc/self/fd of the host."""

    def __init__(self, own: int) -> None:
        self._own = own
        self._files: dict[bytes, int] = {}
        self._folders: dict[bytes, _Folder] = {}
        self._next = 0
        self._calls: dict[int, Callable[[int, Fields], bytes]] = {
            wire.OPEN: self._open,
            wire.CLOSE: self._close,
            wire.READ: self._read,
            wire.WRITE: self._write,
            wire.LSTAT: lambda id, f: _attributes(id, os.lstat(_path(f))),
            wire.STAT: lambda id, f: _attributes(id, os.stat(_path(f))),
            wire.FSTAT: lambda id, f: _attributes(id, os.fstat(self._file(f))),
            wire.SETSTAT: self._set,
            wire.FSETSTAT: self._set_open,
            wire.OPENDIR: self._open_folder,
            wire.READDIR: self._read_folder,
            wire.REMOVE: lambda id, f: _done(id, os.unlink, _path(f)),
            wire.MKDIR: self._make_folder,
            wire.RMDIR: lambda id, f: _done(id, os.rmdir, _path(f)),
            wire.REALPATH: self._real_path,
            wire.RENAME: lambda id, f: _done(id, os.rename, _path(f), _path(f)),
            wire.READLINK: self._read_link,
            # OpenSSH takes the target first, against the draft, and so do all others since.
            wire.SYMLINK: lambda id, f: _done(id, os.symlink, f.text(), _path(f)),
            wire.EXTENDED: self._extended,
        }

    def answer(self, packet: bytes) -> bytes:
        """Return the reply. Raises: BadPacket when nothing more can be understood."""
        fields = Fields(packet)
        kind = fields.byte()
        if kind == wire.INIT:
            told = [wire.text(part) for pair in _EXTENSIONS for part in pair]
            return wire.packet(wire.VERSION, struct.pack(">I", 3), *told)
        id = fields.number()
        call = self._calls.get(kind)
        if call is None:
            return wire.status(id, wire.OP_UNSUPPORTED, "Operation unsupported")
        try:
            return call(id, fields)
        except BadPacket as exc:
            return wire.status(id, wire.BAD_MESSAGE, str(exc))
        except OSError as exc:
            return wire.status(id, _CODES.get(exc.errno or 0, wire.FAILURE), exc.strerror or "Failure")
        except (ValueError, OverflowError) as exc:
            return wire.status(id, wire.FAILURE, str(exc)[:200])

    # --- files -----------------------------------------------------------------------------------

    def _open(self, id: int, fields: Fields) -> bytes:
        path, asked, wanted = _path(fields), fields.number(), fields.attributes()
        reads, writes = bool(asked & _READS), bool(asked & _WRITES)
        flags = os.O_RDWR if reads and writes else os.O_WRONLY if writes else os.O_RDONLY
        flags |= os.O_APPEND if asked & _APPENDS else 0
        flags |= os.O_CREAT if asked & _CREATES else 0
        flags |= os.O_TRUNC if asked & _TRUNCATES else 0
        flags |= os.O_EXCL if asked & _EXCLUSIVE else 0
        self._make_room()
        mode = 0o644 if wanted.mode is None else wanted.mode & 0o7777
        fd = self._opened(path, flags | _ALWAYS, mode)
        handle = self._new_handle()
        self._files[handle] = fd
        return _handle(id, handle)

    def _opened(self, path: bytes, flags: int, mode: int) -> int:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            return os.open(path, flags | os.O_EXCL, mode)
        try:
            if flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, "File exists")
            kind = os.fstat(place).st_mode
            if stat.S_ISDIR(kind):
                raise IsADirectoryError(errno.EISDIR, "Is a directory")
            if not stat.S_ISREG(kind) or not is_store(place):
                raise OSError(errno.EINVAL, "It is no regular file")
            return os.open(str(place), flags & ~os.O_CREAT, dir_fd=self._own)
        finally:
            os.close(place)

    def _make_room(self) -> None:
        if len(self._files) + len(self._folders) >= _MOST_HANDLES:
            raise OSError(errno.EMFILE, "Too many open files")

    def _new_handle(self) -> bytes:
        self._next += 1
        return str(self._next).encode()

    def _file(self, fields: Fields) -> int:
        try:
            return self._files[fields.text()]
        except KeyError:
            raise BadPacket("unknown handle") from None

    def _close(self, id: int, fields: Fields) -> bytes:
        handle = fields.text()
        if self._folders.pop(handle, None) is not None:
            return wire.status(id, wire.OK)
        if handle not in self._files:
            raise BadPacket("unknown handle")
        return _done(id, os.close, self._files.pop(handle))

    def _read(self, id: int, fields: Fields) -> bytes:
        fd, at, size = self._file(fields), fields.long(), fields.number()
        data = os.pread(fd, min(size, _MOST_READ), at)
        if not data:
            return wire.status(id, wire.EOF, "EOF")
        return wire.packet(wire.DATA, struct.pack(">I", id), wire.text(data))

    def _write(self, id: int, fields: Fields) -> bytes:
        fd, at, view = self._file(fields), fields.long(), memoryview(fields.text())
        while view:
            done = os.pwrite(fd, view, at)
            view, at = view[done:], at + done
        return wire.status(id, wire.OK)

    def _set(self, id: int, fields: Fields) -> bytes:
        path, wanted = _path(fields), fields.attributes()
        if wanted.size is not None:
            os.truncate(path, wanted.size)
        _apply(path, wanted)
        return wire.status(id, wire.OK)

    def _set_open(self, id: int, fields: Fields) -> bytes:
        fd, wanted = self._file(fields), fields.attributes()
        if wanted.size is not None:
            os.ftruncate(fd, wanted.size)
        _apply(fd, wanted)
        return wire.status(id, wire.OK)

    # --- folders and names -----------------------------------------------------------------------

    def _open_folder(self, id: int, fields: Fields) -> bytes:
        path = _path(fields)
        self._make_room()
        entries = (entry.name for entry in os.scandir(path))
        handle = self._new_handle()
        self._folders[handle] = _Folder(path, entries)
        return _handle(id, handle)

    def _read_folder(self, id: int, fields: Fields) -> bytes:
        folder = self._folders.get(fields.text())
        if folder is None:
            raise BadPacket("unknown handle")
        names = [_name(folder.path, entry) for entry in islice(folder.entries, _NAMES_AT_ONCE)]
        if not names:
            return wire.status(id, wire.EOF, "EOF")
        return wire.packet(wire.NAME, struct.pack(">II", id, len(names)), *names)

    def _make_folder(self, id: int, fields: Fields) -> bytes:
        path, wanted = _path(fields), fields.attributes()
        os.mkdir(path, 0o755 if wanted.mode is None else wanted.mode & 0o7777)
        return wire.status(id, wire.OK)

    def _real_path(self, id: int, fields: Fields) -> bytes:
        path = os.path.normpath(_path(fields))
        # Two slashes at the start are POSIX's own matter, and stay in normpath.
        shown = wire.bare_name(b"/" + path.lstrip(b"/"))
        return wire.packet(wire.NAME, struct.pack(">II", id, 1), shown)

    def _read_link(self, id: int, fields: Fields) -> bytes:
        shown = wire.bare_name(os.readlink(_path(fields)))
        return wire.packet(wire.NAME, struct.pack(">II", id, 1), shown)

    def _extended(self, id: int, fields: Fields) -> bytes:
        match fields.text():
            case b"posix-rename@openssh.com":
                return _done(id, os.rename, _path(fields), _path(fields))
            case b"hardlink@openssh.com":
                return _done(id, os.link, _path(fields), _path(fields), follow_symlinks=False)
            case b"statvfs@openssh.com":
                return _space(id, os.statvfs(_path(fields)))
        return wire.status(id, wire.OP_UNSUPPORTED, "Operation unsupported")


def _path(fields: Fields) -> bytes:
    """Return a path from the root. Raises: BadPacket."""
    path = fields.text()
    if b"\0" in path:
        raise BadPacket("a path contains NUL")
    return os.path.join(b"/", path)


def _done(id: int, call: Callable[..., None], *arguments: object, **more: object) -> bytes:
    call(*arguments, **more)
    return wire.status(id, wire.OK)


def _handle(id: int, handle: bytes) -> bytes:
    return wire.packet(wire.HANDLE, struct.pack(">I", id), wire.text(handle))


def _attributes(id: int, found: os.stat_result) -> bytes:
    return wire.packet(wire.ATTRS, struct.pack(">I", id), wire.attributes(found))


def _name(folder: bytes, entry: bytes) -> bytes:
    try:
        return wire.name(entry, os.lstat(os.path.join(folder, entry)))
    except OSError:
        return wire.bare_name(entry)  # it went away meanwhile


def _apply(place: bytes | int, wanted: Attributes) -> None:
    # Owner before mode: changing it takes setuid bits away.
    if wanted.ids is not None:
        os.chown(place, *wanted.ids)
    if wanted.mode is not None:
        os.chmod(place, wanted.mode & 0o7777)
    if wanted.times is not None:
        os.utime(place, wanted.times)


def _space(id: int, found: os.statvfs_result) -> bytes:
    numbers = (
        *(found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files),
        *(found.f_ffree, found.f_favail, found.f_fsid, found.f_flag, found.f_namemax),
    )
    packed = struct.pack(">11Q", *(number & 0xFFFFFFFFFFFFFFFF for number in numbers))
    return wire.packet(wire.EXTENDED_REPLY, struct.pack(">I", id), packed)
