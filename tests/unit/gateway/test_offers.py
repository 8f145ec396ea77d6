"""What this server offers as a simplestreams server, read by who reads those of others."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.lxd.views import simplestreams as view
from protos.podium.image.v1 import image_pb2, share_pb2
from services.image.domain import simplestreams as reader

_FINGERPRINT, _META, _ROOT = "ab" * 32, "cd" * 32, "ef" * 32


def _offer(*files: tuple[int, str, str], **more: Any) -> share_pb2.Offer:
    image = image_pb2.Image(
        fingerprint=_FINGERPRINT,
        architecture="x86_64",
        properties={"os": "Mini", "release": "1", "requirements.secureboot": "false", **more},
        aliases=[image_pb2.Alias(name=name) for name in ("mini/1/default", "a,b", "mini")],
    )
    image.created_at.FromSeconds(1767225600)
    made = [share_pb2.File(part=p, filename=n, sha256=s, size_bytes=7) for p, n, s in files]
    return share_pb2.Offer(image=image, files=made)


_SPLIT = (image_pb2.IMAGE_PART_METADATA, "meta-x.tar.xz", _META)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ([(image_pb2.IMAGE_PART_UNIFIED, "x.tar.gz", _FINGERPRINT)], "tar.gz"),
        ([_SPLIT, (image_pb2.IMAGE_PART_ROOTFS, "x.squashfs", _ROOT)], "squashfs"),
        ([_SPLIT, (image_pb2.IMAGE_PART_ROOTFS, "x.tar.zst", _ROOT)], "root.tar.xz"),
    ],
)
def test_what_is_offered_is_found_by_its_alias_and_by_its_fingerprint(files: list[Any], kind: str) -> None:
    """With the hash of the whole as its fingerprint, and of each file as that file's."""
    offer = _offer(*files)
    assert reader.product_paths(view.index([offer])) == [view.PRODUCTS]
    (found,) = reader.offers(view.products([offer]))

    for wanted in ("mini", "mini/1/default", "mini/amd64", _FINGERPRINT, _FINGERPRINT[:12]):
        assert reader.pick([found], wanted, "x86_64").fingerprint == _FINGERPRINT
    assert [(f.sha256, f.path) for f in found.files] == [
        (s, f"images/{_FINGERPRINT}/{n}") for _, n, s in files
    ]
    assert found.properties["type"] == kind and found.properties["requirements.secureboot"] == "false"
    assert found.properties["description"] == "Mini 1 amd64 (20260101_0000)"


def test_an_alias_that_the_list_cannot_hold_is_left_out() -> None:
    (found,) = reader.offers(view.products([_offer((image_pb2.IMAGE_PART_UNIFIED, "x", _FINGERPRINT))]))

    assert found.aliases == ("mini/1/default", "mini")


@pytest.mark.parametrize("serial", ["", "x", "2026", "99991399", "20260101\n", "20260101" + "9" * 40])
def test_a_serial_that_is_no_date_is_not_the_version(serial: str) -> None:
    offer = _offer((image_pb2.IMAGE_PART_UNIFIED, "x", _FINGERPRINT), serial=serial)
    (found,) = reader.offers(view.products([offer]))

    assert found.version == "20260101_0000"


def test_nothing_public_is_a_list_of_nothing() -> None:
    assert reader.product_paths(view.index([])) == []
    assert list(reader.offers(view.products([]))) == []
