"""The process that serves files by SFTP: what it does, and where neither client nor guest can lead it."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.runtime.domain.idmaps import PRIVILEGED, IdMap, id_map
from services.runtime.kernel.sftp import start
from tests.sftp_client import ATTRS, HANDLE, NAME, NOTHING, Sftp, long, number, text

BASE = 1_300_000
NO_SUCH_FILE, FAILURE, BAD_MESSAGE, UNSUPPORTED, EOF = 2, 4, 5, 8, 1
Work = Callable[[Sftp], Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in (*tmp_path.parents, tmp_path):
        folder.chmod(folder.stat().st_mode | 0o111)
    (tmp_path / "secret").write_text("host")
    (tmp_path / "root" / "etc").mkdir(parents=True)
    for path in (tmp_path / "root", tmp_path / "root/etc"):
        os.chown(path, BASE, BASE)
    return tmp_path / "root"


async def served(root: Path, work: Work, idmap: IdMap | None = None) -> Any:
    """Run *work* with a client of a session on *root*, in a thread: the session is asynchronous."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    session = await start(fd, idmap or id_map(BASE))
    os.close(fd)
    line = session._line
    line.setblocking(True)
    line.settimeout(10)
    try:
        return await asyncio.to_thread(work, Sftp(line.sendall, line.recv))
    finally:
        await session.close()


async def test_files_are_written_and_read_with_the_guests_ids(root: Path) -> None:
    """New files belong to the guest's root; owners are those that the guest sees."""

    def work(client: Sftp) -> None:
        assert b"posix-rename@openssh.com" in client.init()
        client.put(b"/etc/new", b"content")
        assert client.get(b"etc/new") == b"content"
        assert client.ask(9, text(b"/etc/new"), number(2), number(5), number(6)).code == 0
        assert client.ask(9, text(b"/etc/new"), number(4), number(0o640)).code == 0
        found = client.ask(17, text(b"/etc/new"))
        assert found.kind == ATTRS
        assert struct.unpack(">IQIII", found.body[:24])[1:] == (7, 5, 6, 0o100640)

    await served(root, work)

    made = (root / "etc/new").stat()
    assert (made.st_uid, made.st_gid) == (BASE + 5, BASE + 6)


async def test_folders_links_and_names(root: Path) -> None:
    """The rest of the protocol, as clients use it."""

    def work(client: Sftp) -> None:
        client.init()
        assert client.ask(14, text(b"/d"), NOTHING).code == 0
        client.put(b"/d/a", b"1")
        assert client.ask(20, text(b"a"), text(b"/d/link")).code == 0
        assert client.ask(19, text(b"/d/link")).text == b"a"
        assert client.ask(200, text(b"hardlink@openssh.com"), text(b"/d/a"), text(b"/d/hard")).code == 0
        assert client.ask(18, text(b"/d/a"), text(b"/d/b")).code == 0
        handle = client.ask(11, text(b"/d"))
        names = client.ask(12, text(handle.text))
        assert names.kind == NAME
        assert int.from_bytes(names.body[:4], "big") == 3
        assert client.ask(12, text(handle.text)).code == EOF
        assert client.ask(16, text(b"/d/../etc/.")).text == b"/etc"
        assert client.ask(13, text(b"/d/hard")).code == 0
        assert client.ask(15, text(b"/d")).code == FAILURE  # not empty
        assert client.ask(200, text(b"statvfs@openssh.com"), text(b"/")).kind == 201
        assert client.ask(200, text(b"unknown@x"), text(b"/")).code == UNSUPPORTED
        assert client.ask(99).code == UNSUPPORTED
        assert client.ask(17, text(b"/none")).code == NO_SUCH_FILE

    await served(root, work)


@pytest.mark.parametrize("idmap", [None, PRIVILEGED])
async def test_neither_path_nor_link_leads_out(root: Path, idmap: IdMap | None) -> None:
    """Above the root there is nothing, whoever asks."""
    secret = str(root.parent / "secret").encode()
    (root / "absolute").symlink_to(secret.decode())
    (root / "relative").symlink_to("../secret")
    (root / "folder").symlink_to("..")

    def work(client: Sftp) -> list[int]:
        client.init()
        paths = (secret, b"/../secret", b"/etc/../../secret", b"/absolute", b"/relative", b"/folder/secret")
        return [client.ask(3, text(path), number(1), NOTHING).code for path in paths]

    assert await served(root, work, idmap) == [NO_SUCH_FILE] * 6


def test_nothing_of_the_guests_is_loaded_into_the_process(root: Path) -> None:
    """Its modules and its encodings are files of the guest by then: importing one would run it."""
    (root / "evil.py").write_text("open('/ran', 'w')")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from services.runtime.sftp import child; "
        "sys.path.insert(0, '/'); child._enter_root(os.open(sys.argv[2], os.O_PATH)); import evil"
    )
    here = str(Path(__file__).resolve().parents[3])
    done = subprocess.run([sys.executable, "-c", code, here, str(root)], capture_output=True, check=False)
    assert b"No module named 'evil'" in done.stderr
    assert not (root / "ran").exists()


async def test_ids_beyond_the_guests_are_refused(root: Path) -> None:
    """The id after its range is not the guest's to give, and neither is the host's root."""

    def work(client: Sftp) -> list[int]:
        client.init()
        client.put(b"/f", b"")
        return [client.ask(9, text(b"/f"), number(2), number(id), number(0)).code for id in (65536, 1 << 31)]

    assert all(code > 0 for code in await served(root, work))
    assert (root / "f").stat().st_uid == BASE


async def test_files_of_the_host_that_lie_in_the_tree_stay_the_hosts(root: Path) -> None:
    """What the guest's root may not read, the session may not either."""
    (root / "hosts").write_text("host")
    (root / "hosts").chmod(0o600)

    def work(client: Sftp) -> int:
        client.init()
        return client.ask(3, text(b"/hosts"), number(1), NOTHING).code

    assert await served(root, work) == 3


@pytest.mark.parametrize("idmap", [None, PRIVILEGED])
@pytest.mark.parametrize("kind", [0o020000, 0o010000, 0o140000], ids=["device", "pipe", "socket"])
async def test_what_is_no_file_is_never_opened(root: Path, idmap: IdMap | None, kind: int) -> None:
    """Images may hold device nodes. The guest cannot open them; its client once had the host's disks so."""
    os.mknod(root / "special", kind | 0o666, os.makedev(1, 5))
    os.chmod(root / "special", 0o666)
    (root / "link").symlink_to("special")

    def work(client: Sftp) -> list[int]:
        client.init()
        asked = [(path, flags) for path in (b"/special", b"/link") for flags in (1, 2, 3, 10, 26)]
        return [client.ask(3, text(path), number(flags), NOTHING).code for path, flags in asked]

    async with asyncio.timeout(10):
        assert await served(root, work, idmap) == [FAILURE] * 10


async def test_the_kernels_own_files_are_not_opened() -> None:
    """In a privileged instance the session is the host's root, and /proc/sys would take what it writes."""

    def work(client: Sftp) -> list[int]:
        client.init()
        paths = (b"/proc/sys/kernel/core_uses_pid", b"/sys/kernel/uevent_seqnum")
        return [client.ask(3, text(path), number(flags), NOTHING).code for path in paths for flags in (1, 2)]

    assert await served(Path("/"), work, PRIVILEGED) == [FAILURE] * 4


async def test_files_are_opened_as_asked(root: Path) -> None:
    """A new one only, an old one only, emptied, appended to."""

    def work(client: Sftp) -> None:
        client.init()
        client.put(b"/f", b"content")
        assert client.ask(3, text(b"/f"), number(2 | 8 | 32), NOTHING).code == FAILURE
        assert client.ask(3, text(b"/none"), number(1), NOTHING).code == NO_SUCH_FILE
        handle = client.ask(3, text(b"/f"), number(2 | 4), NOTHING)
        assert client.ask(6, text(handle.text), long(0), text(b" more")).code == 0
        assert client.get(b"/f") == b"content more"
        assert client.ask(3, text(b"/f"), number(2 | 16), NOTHING).kind == HANDLE
        assert client.get(b"/f") == b""

    await served(root, work)


async def test_handles_have_a_bound(root: Path) -> None:
    """A client cannot make the process hold files without end."""

    def work(client: Sftp) -> int:
        client.init()
        client.put(b"/f", b"")
        return sum(client.ask(3, text(b"/f"), number(1), NOTHING).kind == HANDLE for _ in range(250))

    assert await served(root, work) == 200


@pytest.mark.parametrize(
    "garbage", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1\3"]
)
async def test_what_is_no_packet_ends_the_session(root: Path, garbage: bytes) -> None:
    """Nothing that follows could be understood."""

    def work(client: Sftp) -> bytes:
        client._send(garbage)
        return client._receive(1)

    assert await served(root, work) == b""


@pytest.mark.parametrize("fields", [(), (number(1 << 30),), (text(b"/a\0b"),), (text(b"x" * 70000),)])
async def test_fields_that_are_none_are_refused(root: Path, fields: tuple[bytes, ...]) -> None:
    """The next request is answered."""

    def work(client: Sftp) -> None:
        client.init()
        assert client.ask(17, *fields).code in (BAD_MESSAGE, FAILURE)
        assert client.ask(5, text(b"none"), long(0), number(1)).code == BAD_MESSAGE
        assert client.ask(17, text(b"/")).kind == ATTRS

    await served(root, work)
