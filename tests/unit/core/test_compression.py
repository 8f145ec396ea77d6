"""Compression is chosen from a closed table; nothing of a request becomes a program or an argument."""

from __future__ import annotations

import pytest

from core.compression import Compression, parse_compression
from core.configkeys.others import SERVER
from core.configkeys.project import PROJECT
from core.configkeys.schema import Schema
from core.errors import Invalid


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gzip", Compression("gzip")),
        ("gzip -9", Compression("gzip", 9)),
        (" zstd -19 ", Compression("zstd", 19)),
        ("none", Compression("none")),
        ("squashfs", Compression("squashfs")),
    ],
)
def test_what_lxd_takes_is_understood(text: str, wanted: Compression) -> None:
    """Name and level as LXD's users write them."""
    assert parse_compression(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "", "foo", "sh -c id", "gzip --help", "gzip;id", "gzip -9 -o /etc/x", "zstd -20", "none -1",
        "-9", "/bin/gzip", "gzip -\N{ARABIC-INDIC DIGIT ONE}",
    ],
)  # fmt: skip
def test_programs_and_arguments_are_refused(text: str) -> None:
    """CVE-2026-28384 ran what stood here, CVE-2026-48755 still passed its arguments on."""
    with pytest.raises(Invalid, match="Invalid compression algorithm"):
        parse_compression(text)


@pytest.mark.parametrize("name", ["gzip", "pigz", "bzip2", "xz", "lzma", "zstd", "lz4"])
def test_every_stream_has_a_program_that_knows_its_levels(name: str) -> None:
    """The level goes as one argument of ours, or not at all."""
    assert Compression(name).argv()
    assert Compression(name, 9).argv()[-1] == "-9"


@pytest.mark.parametrize("schema", [PROJECT, SERVER])
def test_defaults_may_be_whatever_one_archive_may_be(schema: Schema) -> None:
    for text in ("gzip -9", "zstd -19", "lz4"):
        schema.check({"images.compression_algorithm": text, "backups.compression_algorithm": text})
    with pytest.raises(Invalid, match="Invalid compression algorithm"):
        schema.check({"images.compression_algorithm": "gzip --suffix x"})
