"""metadata.yaml comes from strangers."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from services.image.domain import metadata

GOOD = b"""
architecture: amd64
creation_date: 1700000000
properties: {os: Debian, release: 12, stable: true, nothing: null}
templates:
  /etc/hostname: {when: [create, dance], template: hostname.tpl, create_only: true}
"""


def test_a_good_one_is_brought_to_one_shape() -> None:
    parsed = metadata.parse(GOOD)
    assert parsed["architecture"] == "x86_64"
    assert parsed["creation_date"] == 1700000000
    assert parsed["expiry_date"] == 0
    assert parsed["properties"] == {"os": "Debian", "release": "12", "stable": "true", "nothing": ""}
    assert parsed["templates"]["/etc/hostname"] == {
        "when": ["create", "dance"],
        "template": "hostname.tpl",
        "create_only": True,
        "properties": {},
    }


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("x86", "i686"),
        ("armel", "armv6l"),
        ("armhfp", "armv7l"),
        ("arm64_generic", "aarch64"),
        ("mips64el", "mips64"),
    ],
)
def test_architectures_have_the_names_that_lxd_takes(name: str, kernels: str) -> None:
    assert metadata.parse(GOOD.replace(b"amd64", name.encode()))["architecture"] == kernels


BOMB = b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "not a map"),
        (b"- 1", "not a map"),
        (b"{", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"[" * 100_000, "too complex"),
        (BOMB, "aliases"),
        (b"!!python/object/apply:os.system ['true']", "not allowed"),
        *((b'a: !!%s ""' % tag, "not allowed") for tag in (b"int", b"float", b"bool", b"timestamp", b"set")),
        (b"architecture: 0x" + b"f" * 5000, "more than 64 digits"),
        (b"creation_date: 1" + b":0" * 400_000, "more than 64 digits"),
        (b"x" * (metadata.MAX_BYTES + 1), "1 MiB"),
        (b"architecture: vax\ncreation_date: 1", "unknown architecture"),
        (b"architecture: [amd64]\ncreation_date: 1", "unknown architecture"),
        (b"architecture: amd64", "Missing creation date"),
        (b"architecture: amd64\ncreation_date: 0", "Missing creation date"),
        (b"architecture: amd64\ncreation_date: -1", "creation_date"),
        (b"architecture: amd64\ncreation_date: 10000000000000000000", "creation_date"),
        (b"architecture: amd64\ncreation_date: true", "creation_date"),
        (b"architecture: amd64\ncreation_date: 2024-01-01", "creation_date"),
        (b"architecture: amd64\ncreation_date: 1\nexpiry_date: x", "expiry_date"),
        (b"architecture: amd64\ncreation_date: 1\nproperties: [1]", "properties"),
        (b"architecture: amd64\ncreation_date: 1\nproperties: {a: " + b"x" * 300_000 + b"}", "256 KiB"),
        (b"architecture: amd64\ncreation_date: 1\ntemplates: [1]", "templates"),
        (b"architecture: amd64\ncreation_date: 1\ntemplates: {etc/x: {template: a}}", "not absolute"),
        (b"architecture: amd64\ncreation_date: 1\ntemplates: {/../x: {template: a}}", "not absolute"),
        (b"architecture: amd64\ncreation_date: 1\ntemplates: {/x: {template: ../a}}", "plain name"),
        (b"architecture: amd64\ncreation_date: 1\ntemplates: {/x: {template: ..}}", "plain name"),
        (b"architecture: amd64\ncreation_date: 1\ntemplates: {/x: {}}", "plain name"),
    ],
)
def test_a_bad_one_is_refused_with_the_reason(text: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        metadata.parse(text)
