"""The scanner lets honest tarballs pass and refuses the others, whatever the size of its bites."""

from __future__ import annotations

import io
import random
import tarfile

import pytest

from core.errors import Invalid
from services.image.formats import magic
from services.image.formats.scanner import FOLDER, Limits, Member, TarScanner
from services.image.formats.tree import Tree

SMALL = Limits(tree_bytes=1 << 20, entries=50, ratio=10, ratio_floor_bytes=1 << 20)


def tarball(*entries: tarfile.TarInfo, format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return out.getvalue()


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def scan(data: bytes, *, bite: int = 1 << 20) -> TarScanner:
    scanner = TarScanner(SMALL, lambda: len(data))
    for at in range(0, len(data), bite):
        scanner.feed(data[at : at + bite])
    scanner.finish()
    return scanner


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("bite", [1, 7, 511, 512, 513, 1 << 20])
def test_all_kinds_of_entries_are_counted(format: int, bite: int) -> None:
    long = "rootfs/" + "d" * 90 + "/" + "n" * 120
    data = tarball(
        entry("./", kind=tarfile.DIRTYPE),
        entry("metadata.yaml", 100),
        entry(long, 1000),
        entry("rootfs/ä", 1),
        entry("rootfs/link", kind=tarfile.SYMTYPE, link="/etc/../shadow" + "y" * 120),
        entry("rootfs/hard", kind=tarfile.LNKTYPE, link=long),
        entry("rootfs/null", kind=tarfile.CHRTYPE),
        format=format,
    )
    assert scan(data, bite=bite).entries == 7


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (entry("../x"), "leads out"),
        (entry("rootfs/../../x"), "leads out"),
        (entry("/etc/passwd"), "not a relative path"),
        (entry("ok", kind=tarfile.LNKTYPE, link="../../etc/shadow"), "leads out"),
        (entry("ok", kind=tarfile.LNKTYPE, link="/etc/shadow"), "not a relative path"),
        (entry("p" * 200 + "/../x"), "leads out"),
        (entry("ok", kind=b"Z"), "unknown type"),
    ],
)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_entries_that_lead_out_are_refused(bad: tarfile.TarInfo, why: str, format: int) -> None:
    with pytest.raises(Invalid, match=why):
        scan(tarball(entry("metadata.yaml", 10), bad, format=format))


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(Invalid, match="more than 50 entries"):
        scan(tarball(*(entry(f"f{n}") for n in range(51))))


def test_too_many_bytes_are_refused_by_what_a_header_declares() -> None:
    huge = entry("f")
    huge.size = 1 << 40
    with pytest.raises(Invalid, match="unpacks to more"):
        scan(huge.tobuf(tarfile.GNU_FORMAT) + bytes(512))


def test_too_many_bytes_are_refused_by_what_passes() -> None:
    scanner = TarScanner(SMALL, lambda: 100)
    with pytest.raises(Invalid, match="unpacks to more"):
        for _ in range(3000):
            scanner.feed(bytes(512))


def test_a_sparse_file_counts_with_its_real_size() -> None:
    sparse = entry("f")
    sparse.pax_headers = {"GNU.sparse.realsize": str(1 << 60), "GNU.sparse.major": "1"}
    with pytest.raises(Invalid, match="unpacks to more"):
        scan(tarball(sparse, format=tarfile.PAX_FORMAT))


def test_global_headers_may_not_name_entries() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "x"}) as tar:
        tar.addfile(entry("y"))
    with pytest.raises(Invalid, match="all of its entries"):
        scan(out.getvalue())


@pytest.mark.parametrize("data", [b"", bytes(1024)])
def test_an_empty_archive_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match="empty"):
        scan(data)


def test_an_archive_cut_off_at_any_byte_is_refused() -> None:
    """Also between two entries, where nothing but the end is missing."""
    long = "rootfs/" + "d" * 90 + "/" + "n" * 120
    data = tarball(entry("metadata.yaml", 700), entry("rootfs", kind=tarfile.DIRTYPE), entry(long, 3))
    whole = data.index(bytes(1024), 2048) // 512 * 512 + 512
    for length in (*range(1, whole, 97), *range(512, whole, 512)):
        with pytest.raises(Invalid):
            scan(data[:length])
    assert scan(data[: whole + 512]).entries == 3


def test_no_mutation_makes_it_crash() -> None:
    rng = random.Random(4)
    whole = tarball(
        entry("metadata.yaml", 700), entry("ä" * 150, 5), entry("rootfs"), format=tarfile.PAX_FORMAT
    )
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            scan(bytes(data))
        except Invalid:
            continue


def test_kinds_are_told_by_content() -> None:
    assert magic.kind_of(tarball(entry("a"))) == "tar"
    assert magic.kind_of(b"\x1f\x8b\x08") == "gz"
    assert magic.kind_of(b"hsqs....") == "squashfs"
    assert magic.kind_of(b"MZ") == ""
    assert magic.extension(b"\xfd7zXZ\x00") == ".tar.xz"
    assert magic.extension(b"?") == ""


def test_headers_without_an_entry_are_bounded() -> None:
    """Each may set another attribute of the one entry that follows, and all are kept until then."""
    flood = b"".join(
        (info := entry("rootfs/x")).pax_headers.update({f"SCHILY.xattr.user.{n}": "v" * 50_000})
        or info.create_pax_header(info.get_info(), "utf-8")[:-512]
        for n in range(30)
    )
    roomy = TarScanner(Limits(), lambda: len(flood))
    with pytest.raises(Invalid, match="oversized headers"):
        roomy.feed(flood)


def test_folders_that_no_entry_made_are_bounded() -> None:
    """Names may be 4 KiB long, and each part of one is a folder in memory."""
    tree = Tree()
    with pytest.raises(Invalid, match="more folders in them"):
        for n in range(10):
            member = Member()
            member.kind, member.path = FOLDER, b"%d/" % n + b"d/" * 1900
            member.mode = member.modified = member.uid = member.gid = member.at = member.size = 0
            member.stored, member.link, member.rdev, member.sparse, member.xattrs = 0, b"", (0, 0), None, {}
            tree.add(member)
