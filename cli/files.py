"""`podium file`: files and folders into an instance, out of it, and edited in it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from cli.call import Call
from cli.failure import CliError, Refused
from cli.progress import Meter, Metered
from cli.server import Server, Upload, url

_CHUNK = 1 << 20


def split(call: Call, text: str) -> tuple[str, str]:
    """Return ("web", "/etc/hosts") for "web/etc/hosts". Raises: UsageError."""
    name, slash, path = text.partition("/")
    if not slash or not name:
        raise call.misuse(f"{text!r} is no file of an instance", "it must read INSTANCE/PATH")
    return name, "/" + path


def _files(name: str) -> str:
    return url("instances", name, "files")


def delete(call: Call) -> None:
    for text in call.words:
        name, path = split(call, text)
        call.server.send("DELETE", _files(name), path=path)


# --- push ---------------------------------------------------------------------------------------


def push(call: Call) -> None:
    *sources, text = call.words
    name, target = split(call, text)
    into = target.endswith("/") or len(sources) > 1
    if call.on("recursive"):
        _push_trees(call, sources, name, target)
        return
    for source in sources:
        if os.path.isdir(source):
            raise CliError(
                f"{source} was not pushed", "it is a folder", f"podium file push -r {source} {text}"
            )
        path = (
            os.path.join(target, os.path.basename(source))
            if into or _is_folder(call, name, target)
            else target
        )
        if call.on("create-dirs"):
            make_parents(call.server, name, os.path.dirname(path))
        _push_one(call, source, name, path)


def _push_one(call: Call, source: str, name: str, path: str) -> None:
    if source == "-":
        _send(call, sys.stdin.buffer, None, None, name, path)
        return
    with _opened(source) as file:
        found = os.fstat(file.fileno())
        _send(call, file, found, found.st_size if stat.S_ISREG(found.st_mode) else None, name, path)


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as exc:
        raise CliError(f"{path} cannot be read", exc.strerror or "?", f"ls -l {path}") from exc


def _send(
    call: Call, file: BinaryIO, found: os.stat_result | None, length: int | None, name: str, path: str
) -> None:
    headers = {"Content-Type": "application/octet-stream", "X-LXD-type": "file"}
    headers |= _ownership(call, found)
    with Meter(f"Pushing {path}", length, quiet=call.is_quiet) as meter:
        counted: Any = Metered(file, meter)
        body = Upload(counted, length) if length is not None else Upload(_chunked(counted), None)
        if length is None:
            headers["Transfer-Encoding"] = "chunked"
        call.server.begin("POST", _files(name), body, headers=headers, path=path)


def _chunked(file: Metered) -> Iterator[bytes]:
    """Yield HTTP chunks; the length of a pipe is not known before its end."""
    while data := file.read(_CHUNK):
        yield b"%x\r\n%s\r\n" % (len(data), data)
    yield b"0\r\n\r\n"


def _ownership(call: Call, found: os.stat_result | None) -> dict[str, str]:
    """Return owner and mode: the flags', else the file's own; root's and the server's default for a pipe."""
    uid, gid, mode = call.text("uid"), call.text("gid"), call.text("mode")
    headers = {"X-LXD-uid": uid or str(found.st_uid if found else 0)}
    headers["X-LXD-gid"] = gid or str(found.st_gid if found else 0)
    if mode or found:
        headers["X-LXD-mode"] = (
            _mode_text(call, mode) if mode or not found else f"{found.st_mode & 0o7777:04o}"
        )
    return headers


def _mode_text(call: Call, text: str) -> str:
    try:
        return f"{int(text, 8) & 0o7777:04o}"
    except ValueError:
        raise call.misuse(f"{text!r} is no mode", "it must be octal, such as 0644") from None


def make_parents(server: Server, name: str, path: str) -> None:
    """Make the folders of *path* that are missing; folders that are there keep their owner and mode."""
    missing: list[str] = []
    while path not in ("", "/") and not _exists(server, name, path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        make_folder(server, name, folder, {"X-LXD-mode": "0755", "X-LXD-uid": "0", "X-LXD-gid": "0"})


def _exists(server: Server, name: str, path: str) -> bool:
    try:
        with server.stream("HEAD", _files(name), path=path):
            return True
    except Refused as exc:
        if exc.status == 404:
            return False
        raise


def make_folder(server: Server, name: str, path: str, headers: dict[str, str]) -> None:
    server.begin("POST", _files(name), headers={**headers, "X-LXD-type": "directory"}, path=path)


def _push_trees(call: Call, sources: list[str], name: str, target: str) -> None:
    if call.text("mode") or call.text("uid") or call.text("gid"):
        raise call.misuse(
            "--mode, --uid and --gid do not go with -r", "a tree keeps the owners and modes it has"
        )
    if call.on("create-dirs"):
        make_parents(call.server, name, target.rstrip("/"))
    for source in sources:
        if not os.path.isdir(source):
            _push_one(call, source, name, os.path.join(target, os.path.basename(source)))
            continue
        top = os.path.dirname(os.path.abspath(source))
        for folder, folders, files in os.walk(os.path.abspath(source)):
            _push_folder(call, top, folder, [*folders, *files], name, target)


def _push_folder(call: Call, top: str, folder: str, leaves: list[str], name: str, target: str) -> None:
    """Push a folder and the files and links in it; os.walk comes back for the folders."""
    place = os.path.join(target, os.path.relpath(folder, top))
    make_folder(call.server, name, place, _ownership(call, os.stat(folder)))
    for leaf in leaves:
        source, path = os.path.join(folder, leaf), os.path.join(place, leaf)
        found = os.lstat(source)
        if stat.S_ISLNK(found.st_mode):
            _push_link(call, source, found, name, path)
        elif stat.S_ISREG(found.st_mode):
            _push_one(call, source, name, path)
        elif not stat.S_ISDIR(found.st_mode):
            raise CliError(f"{source} was not pushed", "it is no file, folder or link", "leave it out")


def _push_link(call: Call, source: str, found: os.stat_result, name: str, path: str) -> None:
    target = os.fsencode(os.readlink(source))
    headers = {"X-LXD-type": "symlink", "X-LXD-uid": str(found.st_uid), "X-LXD-gid": str(found.st_gid)}
    call.server.begin("POST", _files(name), Upload(iter([target]), len(target)), headers=headers, path=path)


# --- pull ---------------------------------------------------------------------------------------


def pull(call: Call) -> None:
    *sources, target = call.words
    into = target.endswith("/") or os.path.isdir(target) or len(sources) > 1
    if call.on("create-dirs"):
        os.makedirs(target if into else os.path.dirname(target) or ".", exist_ok=True)
    for text in sources:
        name, path = split(call, text)
        leaf = os.path.basename(path.rstrip("/"))
        is_tree = call.on("recursive") and _is_folder(call, name, path)
        _pull_one(
            call, name, path, os.path.join(target, leaf) if is_tree or (into and target != "-") else target
        )


def _is_folder(call: Call, name: str, path: str) -> bool:
    try:
        with call.server.stream("HEAD", _files(name), path=path) as reply:
            return reply.headers.get("X-LXD-type") == "directory"
    except Refused:
        return False


def _pull_one(call: Call, name: str, path: str, target: str) -> None:
    """Pull a file, or with --recursive what is below a folder."""
    with call.server.stream("GET", _files(name), path=path) as reply:
        kind = reply.headers.get("X-LXD-type")
        mode = int(reply.headers.get("X-LXD-mode") or "0644", 8)
        if kind == "symlink":
            _write_link(reply.read(), target)
            return
        if kind != "directory":
            total = int(reply.headers.get("Content-Length") or 0) or None
            with Meter(f"Pulling {path}", total, quiet=call.is_quiet or target == "-") as meter:
                _write_file(reply, target, mode, meter.add)
            return
        entries = _entries(reply.read())
    if not call.on("recursive"):
        raise CliError(
            f"{path} was not pulled", "it is a folder", f"podium file pull -r {name}{path} {target}"
        )
    os.makedirs(target, exist_ok=True)
    for entry in entries:
        _pull_one(call, name, f"{path.rstrip('/')}/{entry}", os.path.join(target, entry))
    os.chmod(target, mode & 0o777)


def _entries(data: bytes) -> list[str]:
    """Return the names in a folder that are safe to use here: the guest chose them."""
    import json

    names = json.loads(data)["metadata"] or []
    return [name for name in names if name not in ("", ".", "..") and "/" not in name and "\0" not in name]


def _write_link(where: bytes, target: str) -> None:
    if target == "-":
        sys.stdout.buffer.write(where)
        return
    if os.path.islink(target) or os.path.isfile(target):
        os.unlink(target)
    os.symlink(where, os.fsencode(target))


def _write_file(reply: Any, target: str, mode: int, count: Callable[[int], None]) -> None:
    try:
        file = os.fdopen(os.dup(1), "wb") if target == "-" else _replacement(target)
    except OSError as exc:
        raise CliError(
            f"{target} cannot be written", exc.strerror or "?", "--create-dirs, or another target"
        ) from exc
    with file:
        while data := reply.read(_CHUNK):
            file.write(data)
            count(len(data))
        if target != "-" and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fchmod(file.fileno(), mode & 0o777)


def _replacement(target: str) -> BinaryIO:
    """Open *target* for writing; never through a link that a pulled tree has just made."""
    if os.path.islink(target):
        os.unlink(target)
    return open(target, "wb")


# --- edit ---------------------------------------------------------------------------------------


def edit(call: Call) -> None:
    from cli.documents import run_editor

    name, path = split(call, call.words[0])
    if not sys.stdin.isatty():
        _replace(call, name, path, sys.stdin.buffer)
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        copy = os.path.join(folder, os.path.basename(path))
        _pull_one(call, name, path, copy)
        run_editor(copy)
        with open(copy, "rb") as file:
            _replace(call, name, path, file)


def _replace(call: Call, name: str, path: str, file: BinaryIO) -> None:
    """Give a file new contents; one that exists keeps its owner and mode."""
    headers = {"X-LXD-type": "file", "Content-Type": "application/octet-stream"}
    if _exists(call.server, name, path):
        with call.server.stream("HEAD", _files(name), path=path) as reply:
            headers |= {key: reply.headers[key] for key in ("X-LXD-uid", "X-LXD-gid", "X-LXD-mode")}
    data = file.read()
    call.server.begin("POST", _files(name), Upload(iter([data]), len(data)), headers=headers, path=path)
