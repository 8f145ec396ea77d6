"""A tarball with tables behind it is a squashfs: the kernel reads the same files from it."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import Invalid, TooLate
from services.image.formats.layer import copied, write
from services.image.formats.scanner import Limits, TarScanner
from services.image.formats.squashfs import SquashfsConverter
from services.image.formats.squashwriter import DATA_AT
from tests.integration.image.test_hostile_archives import bomb

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
Facts = dict[str, tuple[object, ...]]


def layer(data: bytes, target: Path) -> Path:
    source = target.with_suffix(".tar")
    source.write_bytes(data)
    reading = os.open(source, os.O_RDONLY)
    writing = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.lseek(writing, DATA_AT, os.SEEK_SET)
        write(TarScanner(Limits(), lambda: len(data)), copied(reading, writing), writing)
    finally:
        os.close(reading)
        os.close(writing)
    return target


@contextmanager
def mounted(squashfs: Path) -> Iterator[Path]:
    at = squashfs.with_suffix(".mnt")
    at.mkdir()
    subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", squashfs, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def facts(root: Path) -> Facts:
    """What is true of each file: all that an archive keeps."""
    found: Facts = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        is_folder = path.is_dir() and not path.is_symlink()
        content: object = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else 0
        xattrs: dict[str, bytes] = {}
        with contextlib.suppress(OSError):  # a squashfs without any has no such calls
            xattrs = (
                {} if path.is_symlink() else {name: os.getxattr(path, name) for name in os.listxattr(path)}
            )
        size, links = (0, 0) if is_folder else (about.st_size, about.st_nlink)
        owner = (about.st_mode, about.st_uid, about.st_gid, int(about.st_mtime), about.st_rdev)
        found[str(path.relative_to(root))] = (*owner, size, links, content, xattrs)
    return found


def a_system(root: Path) -> None:
    """Whatever a distribution may hold."""
    for folder in ("etc", "usr/bin", "dev", "var/spool/empty", "run"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/empty").touch()
    (root / "etc" / ("long" * 60)).write_bytes(b"x")
    (root / "etc/name with ä and\n").write_bytes(b"y")
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/far").symlink_to("/" + "far/" * 60)
    (root / "usr/bin/sudo").write_bytes(os.urandom(300_001))
    os.chmod(root / "usr/bin/sudo", 0o4755)
    os.link(root / "usr/bin/sudo", root / "usr/bin/sudoedit")
    (root / "usr/bin/ping").write_bytes(os.urandom(131_072))
    os.setxattr(
        root / "usr/bin/ping",
        "security.capability",
        bytes.fromhex("0100000200200000000000000000000000000000"),
    )
    os.setxattr(root / "usr/bin/ping", "user.note", b"n" * 500)
    os.setxattr(root / "etc", "trusted.it", b"1")
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "dev/disk", 0o60660, os.makedev(259, 70_000))
    os.mkfifo(root / "run/initctl", 0o600)
    os.chown(root / "var/spool/empty", 65534, 1_000_000)
    os.chmod(root / "run", 0o1777)
    with (root / "sparse").open("wb") as file:
        for at, size in ((5, 10), (131_070, 5000), (5 << 20, 200_000)):
            file.seek(at)
            file.write(os.urandom(size))
        file.truncate((9 << 20) + 17)
    with (root / "holes").open("wb") as file:
        file.truncate(3 << 20)
    for number in range(40):
        with (root / f"many{number}").open("wb") as file:
            for piece in range(number):
                file.seek(piece * 8192)
                file.write(b"%d" % piece)


@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu",),
        ("--format=gnu", "-S"),
        ("--format=posix", "-S"),
        ("--format=posix", "-S", "--sparse-version=0.0"),
        ("--format=posix", "-S", "--sparse-version=0.1"),
    ],
    ids=" ".join,
)
def test_what_tar_packs_is_what_the_kernel_reads(tmp_path: Path, options: tuple[str, ...]) -> None:
    root, with_xattrs = tmp_path / "root", "posix" in options[0]
    root.mkdir()
    a_system(root)
    argv = ["tar", "-C", str(root), "--numeric-owner", *options, "-cf", "-", "."]
    argv[1:1] = ["--xattrs", "--xattrs-include=*"] if with_xattrs else []
    data = subprocess.run(argv, check=True, capture_output=True).stdout
    made = layer(data, tmp_path / "made")

    with mounted(made) as there:
        expected, found = facts(root), facts(there)
    if not with_xattrs:
        expected = {path: (*of[:-1], {}) for path, of in expected.items()}
    assert found == expected
    subprocess.run(["rdsquashfs", "-d", made], check=True, stdout=subprocess.DEVNULL)


def test_what_overlays_write_for_themselves_is_left_out(tmp_path: Path) -> None:
    """It would lead whoever looks something up in the image elsewhere, or hide it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("d")
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        names = ("trusted.overlay.redirect", "trusted.overlay.opaque", "user.kept")
        info.pax_headers = {f"SCHILY.xattr.{name}": "x" for name in names}
        tar.addfile(info)
    with mounted(layer(out.getvalue(), tmp_path / "made")) as there:
        assert os.listxattr(there / "d") == ["user.kept"]


def test_large_folders_are_found_in(tmp_path: Path) -> None:
    """Listings of many blocks have an index, and runs of names end where those of inodes do."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(12_000):
            info = tarfile.TarInfo(f"d/{number * 7919 % 12_000:05}{'x' * (number % 60)}")
            info.size = number % 3
            tar.addfile(info, io.BytesIO(b"12"[: info.size]))
    with mounted(layer(out.getvalue(), tmp_path / "made")) as there:
        names = sorted(os.listdir(there / "d"))
        assert len(names) == 12_000
        for name in names[::97]:
            assert (there / "d" / name).stat().st_size < 3
        assert not (there / "d" / "12345y").exists()


def archive(*entries: tuple[str, bytes, object]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, what in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            content = what if isinstance(what, bytes) else b""
            info.linkname, info.size = what if isinstance(what, str) else "", len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


FILE, LINK, SYM, DIR = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


def test_later_entries_win_as_if_unpacked(tmp_path: Path) -> None:
    data = archive(
        ("a/f", FILE, b"old"),
        ("a/g", LINK, "a/f"),
        ("a/f", FILE, b"newer"),
        ("e", DIR, None),
        ("e", FILE, b"file"),
        ("./a/./h", LINK, "./a//f"),
        ("a", DIR, None),
    )
    with mounted(layer(data, tmp_path / "made")) as there:
        assert (there / "a/f").read_bytes() == (there / "a/h").read_bytes() == b"newer"
        assert ((there / "a/g").read_bytes(), (there / "e").read_bytes()) == (b"old", b"file")
        assert [(there / "a" / name).stat().st_nlink for name in "fgh"] == [2, 1, 2]


def sparse(offset: int, length: int, real: int) -> Callable[[], bytes]:
    def made() -> bytes:
        info = tarfile.TarInfo("f")
        info.size = 512
        info.pax_headers = {"GNU.sparse.map": f"{offset},{length}", "GNU.sparse.size": str(real)}
        return info.tobuf(tarfile.PAX_FORMAT) + bytes(512 + 1024)

    return made


@pytest.mark.parametrize(
    "make_it",
    [
        lambda: archive(("f", FILE, b""), ("f/x", FILE, b"")),
        lambda: archive(("l", SYM, "/etc"), ("l/x", FILE, b"")),
        lambda: archive(("d/x", FILE, b""), ("d", FILE, b"")),
        lambda: archive(("h", LINK, "nowhere")),
        lambda: archive(("d", DIR, None), ("h", LINK, "d")),
        lambda: archive((".", FILE, b"x")),
        sparse(0, 600, 600),
        sparse(100, 512, 600),
        sparse(0, 512, 100),
    ],
)
def test_what_no_file_system_could_hold_is_refused(tmp_path: Path, make_it: Callable[[], bytes]) -> None:
    with pytest.raises(Invalid, match="refused"):
        layer(make_it(), tmp_path / "made")


async def test_fifty_thousand_entries_cost_no_more_than_their_tables(tmp_path: Path) -> None:
    """A million take 0.5 GiB and half a minute of a quiet machine; a twentieth of that has to do here."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(50_000):
            info = tarfile.TarInfo(f"rootfs/d{number // 1000}/a file with some name {number}")
            info.size, info.uid = 1, number % 7
            tar.addfile(info, io.BytesIO(b"x"))
            tar.members.clear()  # type: ignore[attr-defined, unused-ignore]
    source, made = tmp_path / "source", tmp_path / "made"
    source.write_bytes(out.getvalue())

    await SquashfsConverter(Limits(memory_bytes=160 << 20)).convert(source, made)

    with mounted(made) as there:
        assert len(os.listdir(there / "rootfs/d49")) == 1000


async def test_what_takes_too_long_is_refused(tmp_path: Path) -> None:
    """However well it is within all other bounds."""
    source = tmp_path / "source"
    source.write_bytes(bomb(lzma.compress(bytes(1 << 26)), 8))

    with pytest.raises(TooLate, match="took too long"):
        await SquashfsConverter(Limits(ratio=1 << 20, seconds=0.2)).convert(source, tmp_path / "made")
