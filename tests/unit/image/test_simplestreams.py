"""What simplestreams servers offer, honest and hostile ones."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import Invalid, NotFound, Unsupported
from services.image.domain.simplestreams import Offer, offers, pick, product_paths

_HASH = "ab" * 32


def _item(kind: str, **more: Any) -> dict[str, Any]:
    return {"ftype": kind, "path": f"images/{kind}", "sha256": _HASH, "size": 7, **more}


def _products(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    product = {"aliases": "mini/1,mini", "arch": "amd64", "os": "Mini", "release_title": "One", **more}
    return {"products": {"mini": {**product, "versions": {"20260101_0100": {"items": items}}}}}


def test_a_squashfs_and_its_metadata_are_one_image() -> None:
    """Its fingerprint is the hash of both together, not of a part."""
    items = {"m": _item("lxd.tar.xz", combined_squashfs_sha256="cd" * 32), "r": _item("squashfs")}

    (found,) = offers(_products(items))

    assert found.fingerprint == "cd" * 32 and found.architecture == "x86_64"
    assert [file.part for file in found.files] == ["metadata", "rootfs"]
    assert found.properties["description"] == "Mini One amd64 (20260101_0100)"


def test_lists_of_products_are_read_once_and_are_not_many() -> None:
    """Each is a request and up to 64 MiB to parse."""

    def index(paths: list[str]) -> dict[str, Any]:
        entry = {"datatype": "image-downloads", "products": ["x"]}
        return {"index": {str(n): entry | {"path": path} for n, path in enumerate(paths)}}

    assert product_paths(index(["a"] * 1000)) == ["a"]
    with pytest.raises(Invalid, match="more than 100 lists"):
        product_paths(index([str(n) for n in range(101)]))


def test_a_virtual_machine_is_refused_by_what_it_is() -> None:
    items = {"m": _item("lxd.tar.xz", **{"combined_disk-kvm-img_sha256": _HASH}), "d": _item("disk-kvm.img")}
    found = list(offers(_products(items)))

    for wanted in ("mini", "mini/1", "mini/amd64"):
        with pytest.raises(Unsupported, match="virtual machines"):
            pick(found, wanted, "x86_64")


def test_a_container_beside_a_virtual_machine_is_picked() -> None:
    items = {"u": _item("lxd_combined.tar.gz"), "d": _item("disk-kvm.img")}

    assert pick(list(offers(_products(items))), "mini", "x86_64").fingerprint == _HASH


def test_the_beginning_of_a_fingerprint_picks_one_image_or_none() -> None:
    """However short; the same image in several versions is one."""
    twice = list(offers(_products({"u": _item("lxd_combined.tar.gz")}))) * 2
    other = list(offers(_products({"u": _item("lxd_combined.tar.gz", sha256="a" * 64)})))

    assert pick(twice, "a", "aarch64").fingerprint == _HASH
    with pytest.raises(Invalid, match="More than one"):
        pick([*twice, *other], "a", "x86_64")
    with pytest.raises(NotFound):
        pick(twice, "c", "x86_64")


def test_architectures_have_the_names_of_kernels() -> None:
    (found,) = offers(_products({"u": _item("lxd_combined.tar.gz")}, arch="ppc64el"))

    assert found.architecture == "ppc64le" and pick([found], "mini/ppc64el", "x86_64") == found


def test_a_unified_image_is_its_own_hash() -> None:
    (found,) = offers(_products({"u": _item("lxd_combined.tar.gz")}))

    assert found.fingerprint == _HASH and found.files[0].part == "unified"


@pytest.mark.parametrize(
    "broken",
    [
        _item("lxd_combined.tar.gz", sha256="no"),
        _item("lxd_combined.tar.gz", size="7"),
        _item("lxd_combined.tar.gz", size=0),
        "no object",
        None,
    ],
)
def test_what_is_not_understood_is_left_out(broken: Any) -> None:
    assert list(offers(_products({"u": broken}))) == []


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "http://other/x", "file:x", ""])
def test_a_file_cannot_lie_elsewhere(path: str) -> None:
    """A server that was broken into must not make us ask another one."""
    index = {"index": {"i": {"datatype": "image-downloads", "products": ["x"], "path": path}}}

    with pytest.raises(Invalid, match="names the file"):
        product_paths(index)


@pytest.mark.parametrize("index", [None, [], {}, {"index": []}, "x"])
def test_an_index_that_is_none_is_said(index: Any) -> None:
    with pytest.raises(Invalid, match="not usable"):
        product_paths(index)


def _offer(fingerprint: str, version: str, architecture: str, *aliases: str) -> Offer:
    return Offer(fingerprint, version, architecture, aliases, ())


def test_the_newest_image_of_an_alias_for_this_host_is_picked() -> None:
    found = [
        _offer("aa" * 32, "20250101", "x86_64", "mini"),
        _offer("bb" * 32, "20260101", "x86_64", "mini"),
        _offer("cc" * 32, "20270101", "aarch64", "mini"),
    ]

    assert pick(found, "mini", "x86_64").fingerprint == "bb" * 32
    assert pick(found, "mini/arm64", "x86_64").fingerprint == "cc" * 32
    assert pick(found, "aaaaaaaa", "x86_64").fingerprint == "aa" * 32
    with pytest.raises(NotFound, match="offers no image 'maxi'"):
        pick(found, "maxi", "x86_64")
