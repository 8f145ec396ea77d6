"""Whatever strangers may send to what parses it: a value or a refusal of ours, and never anything else."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core.configkeys.instance import INSTANCE, PROFILE
from core.configkeys.network import NETWORK
from core.configkeys.others import SERVER
from core.configkeys.project import PROJECT
from core.configkeys.schema import Schema
from core.errors import Invalid, PodiumError
from gateway import pieces
from gateway.lxd import filters
from gateway.lxd import request as req
from gateway.lxd.feed import parse_cursor
from gateway.migration.channels import There
from services.image.domain import backupindex, metadata
from services.image.formats.scanner import Limits, TarScanner
from services.image.formats.tree import Tree
from tests.archives import archive, entry, index

often = settings(max_examples=80, deadline=2000)
WORDS = [
    *(
        "name",
        "config.a",
        "eq",
        "ne",
        "not",
        "and",
        "or",
        ".",
        "*",
        ".*",
        "^",
        "$",
        "(",
        ")",
        "|",
        "[a]",
        "a",
        "1",
    ),
    *("'x", '"y', "\\", "\u00e9", "\ud800", "-5", ":"),
]
words = st.lists(st.sampled_from(WORDS)).map(" ".join)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
trees = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=12
)
HOSTILE = (
    *("-1", "1e999", "nan", "\u0663", "9" * 5000, "0x" + "f" * 5000, "1" * 300 + "%", "0-99999999999", ",,,"),
    *(
        "::1/129",
        "1.2.3.4-1.2.3.3",
        "https://[",
        "tcp:[::",
        "a\nb",
        "a\0b",
        "\ud800",
        "\u2028",
        "{{",
        "[" * 3000,
    ),
    *(
        "%d" * 999,
        "99999999999y",
        "* * * * *",
        "*/0 * * * *",
        "both 0 0-",
        "both " * 999,
        "../..",
        "'",
        "a." * 130,
    ),
)


@often
@given(words | st.text(max_size=200))
def test_any_filter_is_one_or_is_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        filters.parse(text)({"name": "a1" * 60, "config": {"a": "x"}, "n": None, "l": [1]})


@often
@given(trees)
def test_any_body_is_read_or_refused(tree: Any) -> None:
    with contextlib.suppress(Invalid):
        data = req.parse_object(json.dumps({"x": tree, "devices": tree}).encode("utf-8", "surrogatepass"))
        for read in (req.text, req.flag, req.number, req.texts, req.text_map, req.when, req.object_of):
            with contextlib.suppress(Invalid):
                read(data, "x")
        req.device_map(data)


@often
@given(
    st.dictionaries(
        st.sampled_from(["Range", "If-Range", "If-None-Match", "If-Modified-Since"]), words | st.text()
    )
)
def test_any_condition_of_a_download_is_answered(headers: dict[str, str]) -> None:
    for size in (0, 1, 1000):
        found = pieces.answer(headers, size=size, etag="t", modified=1.5)
        assert 0 <= found.start <= found.start + found.length <= size


@often
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_address_and_cursor_is_one_or_is_refused(left: str, right: str) -> None:
    with contextlib.suppress(Invalid):
        parse_cursor(left)
    with contextlib.suppress(Invalid):
        There(f"https://{left}/1.0/operations/{right}", right, {"control": left, "fs": right}).check()


@pytest.mark.parametrize(
    "schema", [INSTANCE, PROFILE, NETWORK, SERVER, PROJECT], ids=lambda schema: schema.what
)
def test_any_value_of_any_key_is_one_or_is_refused(schema: Schema) -> None:
    """Whatever a parser stumbles over, it must say so."""
    names = [
        *schema.keys,
        *(prefix + rest for prefix in schema.families for rest in ("x", "a.b", "..", "x" * 999)),
    ]
    for name in names:
        for value in HOSTILE:
            with contextlib.suppress(Invalid):
                schema.check({name: value})


@often
@given(trees, st.sampled_from(["architecture", "creation_date", "properties", "templates", "oci", "x"]))
def test_any_metadata_is_usable_or_refused(tree: Any, field: str) -> None:
    text = yaml.safe_dump({"architecture": "amd64", "creation_date": 1, field: tree}, allow_unicode=True)
    with contextlib.suppress(Invalid):
        metadata.parse(text.encode("utf-8", "surrogatepass"))


@often
@given(trees, st.sampled_from(["config", "devices", "ephemeral", "profiles", "created_at", "description"]))
def test_any_index_of_a_backup_is_usable_or_refused(tree: Any, field: str) -> None:
    for about in (
        index(**{field: tree}),
        {**index(), field: tree},
        index(snapshots=(entry("s", **{field: tree}),)),
    ):
        with contextlib.suppress(PodiumError):
            backupindex.parse(json.dumps(about, default=str).encode("utf-8", "surrogatepass"))


PAX = [
    *("path", "size", "uid", "mtime", "linkpath", "SCHILY.xattr.user.a", "LIBARCHIVE.xattr.%zz"),
    *(f"GNU.sparse.{name}" for name in ("realsize", "major", "map", "name", "size", "offset", "numbytes")),
]
WHOLE = archive(
    index(snapshots=(entry("s"),)), **{"backup/container/rootfs/l": "-> x", "backup/x": b"y" * 700}
)


@often
@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6
    )
)
def test_any_bytes_are_an_archive_or_refused(changes: list[tuple[int, bytes]]) -> None:
    """Check sums are set right, so that what was changed is read."""
    data = bytearray(WHOLE)
    for at, new in changes:
        data[at : at + len(new)] = new
        head = bytearray(data[at // 512 * 512 :][:512])
        head[148:156] = b" " * 8
        data[at // 512 * 512 + 148 : at // 512 * 512 + 156] = b"%06o\0 " % sum(head)
    scanner, tree = TarScanner(Limits(), lambda: len(data)), Tree()
    scanner.found = lambda member: void(tree.add(member))
    with contextlib.suppress(Invalid):
        scanner.feed(bytes(data))
        scanner.finish()


def void(_: object) -> None:
    """So that a call is no value."""


@often
@given(st.dictionaries(st.sampled_from(PAX), st.text(max_size=30)))
def test_any_extended_header_is_one_or_refused(headers: dict[str, str]) -> None:
    info = tarfile.TarInfo("rootfs/x")
    info.pax_headers = headers
    out = io.BytesIO(info.create_pax_header(info.get_info(), "utf-8") + bytes(1024))
    scanner, tree = TarScanner(Limits(), lambda: 1 << 20), Tree()
    scanner.found = lambda member: void(tree.add(member))
    with contextlib.suppress(Invalid):
        scanner.feed(out.getvalue())
        scanner.finish()
