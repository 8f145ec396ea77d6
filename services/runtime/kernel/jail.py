"""A place for a program that talks with strangers: it sees its own files and one folder, and nothing else.

The folder is that of a detached mount (see trees.py), so it has no path by which anybody else could meet
it. The program has namespaces of its own without any network, sees no process but its own, gets no
descriptor of ours, and has the few capabilities that its work needs. Nothing below is set-uid, a device
or a program, but for the host's own programs, which it cannot change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from core.errors import LimitReached
from core.templates import MOST_TEMPLATE_BYTES, MOST_TEMPLATES
from services.runtime.kernel import mountapi

DATA = "data"
_METADATA, _TEMPLATES = "metadata.yaml", "templates"
_MOST_METADATA = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = ("bin", "lib", "lib64", "sbin")
_BESIDE = 16 << 20


def open_jail(data: int) -> int:
    """Return the descriptor of a root whose folder "data" is the detached mount *data*, which is consumed.

    Blocks shortly. The caller closes both.
    """
    top = mountapi.detached("tmpfs", size=_BESIDE)
    try:
        for name in _LINKS:
            os.symlink(f"usr/{name}", name, dir_fd=top)
        with mountapi.descriptors() as fds:
            fds.append(mountapi.open_tree(Path("/usr")))
            mountapi.set_attributes(fds[-1], read_only=True, propagation="private")
            attach_at(top, "usr", fds[-1])
            attach_at(top, DATA, data)
        os.mkdir("dev", 0o755, dir_fd=top)
        os.close(os.open("dev/null", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444, dir_fd=top))
    except BaseException:
        os.close(top)
        raise
    return top


def attach_at(top: int, name: str, mount: int) -> None:
    """Put the detached *mount* onto a new folder *name* of the detached *top*."""
    os.mkdir(name, 0o755, dir_fd=top)
    place = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        mountapi.attach(mount, place)
    finally:
        os.close(place)


def empty_folder() -> int:
    """Return a detached, small folder in memory."""
    return mountapi.detached("tmpfs", size=_BESIDE)


def folder_of(path: Path) -> int:
    """Return *path* as a detached mount that can be written to, but in which nothing has power."""
    mount = mountapi.open_tree(path)
    try:
        mountapi.set_attributes(mount, inert=True, propagation="private")
    except OSError:
        os.close(mount)
        raise
    return mount


def jailed(jail: int, capabilities: Sequence[str], argv: Sequence[str]) -> list[str]:
    """Return the command that runs *argv* as root of *jail* with those capabilities at most.

    It ends with the process that is started by the command.
    """
    namespaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
    root = f"/proc/{os.getpid()}/fd/{jail}"
    bounds = ",".join(("-all", *(f"+{capability}" for capability in capabilities)))
    # Whoever makes it eat the host's memory loses it before others do.
    enter = ["choom", "-n", "1000", "--", "unshare", *namespaces, f"--root={root}", "--wd=/"]
    return [*enter, "setpriv", "--no-new-privs", f"--bounding-set={bounds}", "--", *argv]


def beside(jail: int) -> dict[str, bytes]:
    """Return the plain files metadata.yaml and templates/NAME among the data, by path.

    They are a stranger's: what is a link, or anything else, is passed over. Raises: LimitReached. Blocks.
    """
    found = {}
    with mountapi.descriptors() as fds:
        fds.append(os.open(DATA, _FOLDER, dir_fd=jail))
        if (metadata := _plain(fds[0], _METADATA, _MOST_METADATA)) is not None:
            found[_METADATA] = metadata
        try:
            fds.append(os.open(_TEMPLATES, _FOLDER, dir_fd=fds[0]))
        except OSError:
            return found
        names = os.listdir(fds[1])
        if len(names) > MOST_TEMPLATES:
            raise LimitReached("TEMPLATES", f"An instance may have {MOST_TEMPLATES} templates")
        for name in names:
            if (text := _plain(fds[1], name, MOST_TEMPLATE_BYTES)) is not None:
                found[f"{_TEMPLATES}/{name}"] = text
    return found


def _plain(folder: int, name: str, most: int) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        text = file.read(most + 1)
    if len(text) > most:
        raise LimitReached("TOO_LARGE", f"{name[:80]!r} of the other server holds more than {most >> 10} KiB")
    return text
