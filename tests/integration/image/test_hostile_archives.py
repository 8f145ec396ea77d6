"""A zoo of archives that no honest sender makes: each fails with its reason and leaves nothing behind."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import Invalid
from core.operations.operation import FAILED, SUCCEEDED
from tests.integration.image.harness import YAML, Service, packed, squashed_by_a_stranger, tarball, unified

Parts = tuple[bytes, ...]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def bomb(unit: bytes, times: int) -> bytes:
    """A tarball whose one file is *times* compressed streams of 64 MiB of zeros: 10 GiB in no time."""
    begin = tarball({"metadata.yaml": YAML, "rootfs": None})[:1536]
    pack = gzip.compress if unit.startswith(b"\x1f\x8b") else lzma.compress
    return pack(begin + header("rootfs/zeros", times << 26)) + unit * times


def pax(key: str, value: str) -> bytes:
    info = tarfile.TarInfo("rootfs/odd")
    info.pax_headers = {key: value}
    return unified()[: -tarfile.RECORDSIZE] + info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def with_field(offset: int, field: bytes) -> bytes:
    """A tarball whose last header holds *field*, with a check sum that is right."""
    block = bytearray(header("rootfs/odd", 0))
    block[offset : offset + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return tarball({"metadata.yaml": YAML, "rootfs": None})[:1536] + bytes(block) + bytes(1024)


def hard_link(name: str, to: str) -> bytes:
    """A tarball of an image in which *name* is one."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, to
    begin = tarball({"rootfs": None, "rootfs/hello": YAML})[: 3 * 512]
    return begin + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def flipped(data: bytes) -> bytes:
    """Flip a bit of the check sum at the end."""
    return data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]


def squashed(folder: Path, change: Callable[[bytearray], object]) -> Parts:
    data = bytearray(
        squashed_by_a_stranger(tarball({"etc/x": os.urandom(150_000).hex().encode()}), folder / "s")
    )
    change(data)
    return tarball({"metadata.yaml": YAML}), bytes(data)


def with_yaml(text: bytes) -> Parts:
    return (unified(**{"metadata.yaml": text}),)


def _noise(data: bytearray) -> None:
    data[200:100_000] = os.urandom(99_800)


def _tables(data: bytearray) -> None:
    """Point the inode table behind the end of the file."""
    struct.pack_into("<Q", data, 64, 1 << 60)


ZEROS_GZ = gzip.compress(bytes(1 << 26), 9)
ALIASES = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 121))
READ = r"not usable|refused"

ZOO: dict[str, tuple[Callable[[Path], Parts], str]] = {
    "rootfs is a link": (lambda _: (tarball({"metadata.yaml": YAML, "rootfs": "/"}),), "no folder rootfs"),
    "metadata.yaml is a link": (
        lambda _: (tarball({"metadata.yaml": "/etc/shadow", "rootfs": None}),),
        "metadata.yaml",
    ),
    "metadata.yaml is a folder": (
        lambda _: (tarball({"metadata.yaml": None, "rootfs": None}),),
        "metadata.yaml",
    ),
    "templates is a link": (
        lambda _: (
            unified(
                **{"metadata.yaml": YAML + b"templates: {/etc/x: {template: shadow}}\n", "templates": "/etc"}
            ),
        ),
        "templates is no folder",
    ),
    "templates nobody names are a link": (lambda _: (unified(templates="/etc"),), "templates is no folder"),
    "templates with a pipe": (
        lambda _: (
            unified(templates=None)[:-10_240] + header("templates/t", 0, tarfile.FIFOTYPE) + bytes(1024),
        ),
        "templates/t is not a regular file",
    ),
    "metadata.yaml is a hard link": (lambda _: (hard_link("metadata.yaml", "rootfs/hello"),), "hard link"),
    "no metadata": (lambda _: (tarball({"rootfs": None}),), "metadata.yaml"),
    "no rootfs": (lambda _: (tarball({"metadata.yaml": YAML}),), "no folder rootfs"),
    "a name that leads out": (lambda _: (unified(**{"../evil": b"x"}),), "leads out"),
    "an absolute name": (lambda _: (unified(**{"/etc/evil": b"x"}),), "not a relative path"),
    "a file below a link": (lambda _: (unified(**{"rootfs/l": "/etc", "rootfs/l/evil": b"x"}),), READ),
    "a file below a file": (lambda _: (unified(**{"rootfs/f": b"x", "rootfs/f/evil": b"x"}),), READ),
    "a name with NUL": (lambda _: (pax("path", "rootfs/a\0b"),), r"not a relative path"),
    "a name of 10,000 characters": (lambda _: (pax("path", "rootfs/" + "n" * 10_000),), "too long"),
    "a name part of 300 characters": (lambda _: (unified(**{"rootfs/" + "n" * 300: b"x"}),), "too long"),
    "a size below zero": (lambda _: (with_field(124, b"\xff" * 12),), "a number that is none"),
    "a size of words": (lambda _: (with_field(124, b"12x45678901\0"),), "a number that is none"),
    "a size of 8 EiB": (lambda _: (with_field(124, b"\x80" + b"\x7f" * 11),), "unpacks to more"),
    "a sparse file of 1 EiB": (lambda _: (pax("GNU.sparse.realsize", str(1 << 60)),), "unpacks to more"),
    "an entry of no known type": (lambda _: (with_field(156, b"Z"),), "unknown type"),
    "no archive": (lambda _: (b"MZ" + bytes(5000),), "neither a tarball"),
    "text": (lambda _: (b"hello",), "neither a tarball"),
    "only the first bytes of gzip": (lambda _: (b"\x1f\x8b",), READ),
    "only the first bytes of squashfs": (lambda _: (b"hsqs",), READ),
    "zeros": (lambda _: (bytes(10_240),), "neither a tarball"),
    "10 GiB of zeros": (lambda _: (bomb(ZEROS_GZ, 160),), "unpacks to more"),
    "10 GiB of zeros in xz": (lambda _: (bomb(lzma.compress(bytes(1 << 26)), 160),), "unpacks to more"),
    "a bomb that is no tarball": (lambda _: (ZEROS_GZ * 16,), READ),
    "gzip in gzip": (lambda _: (gzip.compress(gzip.compress(unified())),), READ),
    "a damaged xz": (lambda _: (packed(unified(), "xz", "-c")[:-30] + bytes(30),), READ),
    "a flipped bit in gzip": (lambda _: (flipped(gzip.compress(unified())),), READ),
    "a corrupt squashfs": (lambda f: squashed(f, _noise), READ),
    "a squashfs with wild tables": (lambda f: squashed(f, _tables), READ),
    "half a squashfs": (lambda f: squashed(f, lambda d: d.__delitem__(slice(150_000, None))), READ),
    "a squashfs as unified image": (
        lambda f: squashed(f, lambda d: None)[1:],
        r"no folder rootfs|metadata.yaml",
    ),
    "large metadata": (lambda _: with_yaml(YAML + b"#" * (1 << 20)), "larger than 1048576"),
    "a YAML bomb": (lambda _: with_yaml(ALIASES), "aliases are not allowed"),
    "YAML of a thousand levels": (lambda _: with_yaml(b"a: " + b"[" * 1000), "metadata.yaml"),
    "YAML with a Python object": (
        lambda _: with_yaml(YAML + b"x: !!python/object/apply:os.system [id]\n"),
        "metadata.yaml",
    ),
    "YAML that is binary": (lambda _: with_yaml(os.urandom(500)), "metadata.yaml"),
    "an unknown architecture": (
        lambda _: with_yaml(b"architecture: z80\n"),
        "architecture",
    ),
    "no creation date": (lambda _: with_yaml(b"architecture: amd64\n"), "creation date"),
    "templates that lead out": (
        lambda _: with_yaml(YAML + b"templates: {/etc/x: {template: ../../etc/shadow}}\n"),
        "plain name",
    ),
}


async def fails(service: Service, parts: Parts) -> str:
    """Upload, and return why it failed once nothing of it is left."""
    done = await service.upload(*parts)
    assert done.state == FAILED
    assert isinstance(done.error(), Invalid), done.error_message
    assert service.files() == set()
    assert not list((service.root / "staging").iterdir())
    return done.error_message


@pytest.mark.parametrize("name", ZOO)
async def test_a_hostile_image_fails_with_its_reason_and_leaves_nothing(
    service: Service, name: str, tmp_path: Path
) -> None:
    make, why = ZOO[name]
    parts = make(tmp_path)
    with pytest.raises(Invalid, match=why):
        raise Invalid("SAID", await fails(service, parts))


@pytest.mark.parametrize("pack", ["gzip", "xz", "zstd", "bzip2", "lz4"])
async def test_an_image_cut_off_anywhere_fails(service: Service, pack: str) -> None:
    """Every program says so when its input ends too early; not one makes half an image of it."""
    whole = packed(unified(**{"rootfs/noise": os.urandom(4000)}), pack, "-c")
    for length in range(1, len(whole), 373):
        await fails(service, (whole[:length],))


async def test_a_plain_tarball_cut_off_anywhere_fails_or_is_whole(service: Service) -> None:
    """Only the zeros at its end may be missing."""
    whole = unified(**{"rootfs/last": b"last" * 300})
    for length in range(100, len(whole), 911):
        done = await service.upload(whole[:length])
        if done.state == SUCCEEDED:
            ready = await service.prepare(done.metadata["fingerprint"])
            argv = ["rdsquashfs", "-c", "rootfs/last", ready.squashfs_path]
            assert subprocess.run(argv, capture_output=True, check=True).stdout == b"last" * 300
            await service.delete(str(done.metadata["fingerprint"]))
        assert service.files() == set()


async def test_of_two_files_with_one_name_there_is_one_answer(service: Service) -> None:
    """Whatever tar2sqfs makes of it, metadata.yaml is read from what instances get."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for text in (YAML, YAML.replace(b"Tiny", b"Other")):
            info = tarfile.TarInfo("metadata.yaml")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        tar.addfile(tarfile.TarInfo("rootfs/x"))
    done = await service.upload(out.getvalue())
    assert (done.state == FAILED) == (service.files() == set())
