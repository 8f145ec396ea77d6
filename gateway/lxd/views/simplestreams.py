"""What a simplestreams server says of its images: the index, the products, and where each file is. Pure.

Source of the format: what image servers publish (index:1.0, products:1.0), and what LXD 5.0.2 reads of it. An
alias belongs to one image here, so each image is a product of its own, with one version.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from protos.podium.image.v1 import image_pb2, share_pb2

INDEX = "streams/v1/index.json"
PRODUCTS = "streams/v1/images.json"
# As these servers call them; the names of the kernel are understood too.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}
_SERIAL = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[\d._:-]{0,16}")
_SLUG = re.compile(r"[^a-z0-9.]+")
_REQUIREMENT = "requirements."


def index(offers: Iterable[share_pb2.Offer]) -> dict[str, Any]:
    entry = {
        "datatype": "image-downloads",
        "path": PRODUCTS,
        "format": "products:1.0",
        "products": [_name(offer) for offer in offers],
    }
    return {"format": "index:1.0", "index": {"images": entry}}


def products(offers: Iterable[share_pb2.Offer]) -> dict[str, Any]:
    return {
        "format": "products:1.0",
        "datatype": "image-downloads",
        "content_id": "images",
        "products": {_name(offer): _product(offer) for offer in offers},
    }


def path(offer: share_pb2.Offer, file: share_pb2.File) -> str:
    """Return where a file lies below the server's address."""
    return f"images/{offer.image.fingerprint}/{file.filename}"


def _name(offer: share_pb2.Offer) -> str:
    image = offer.image
    words = [image.properties.get(key, "") for key in ("os", "release", "architecture", "variant")]
    slugs = [_SLUG.sub("-", word.lower()).strip("-") for word in words]
    return ":".join([*filter(None, slugs), image.fingerprint[:12]])


def _product(offer: share_pb2.Offer) -> dict[str, Any]:
    image, said = offer.image, offer.image.properties
    serial = _serial(image)
    product = {
        # A comma would be the end of a name.
        "aliases": ",".join(alias.name for alias in image.aliases if "," not in alias.name),
        "arch": _ARCHITECTURES.get(image.architecture, image.architecture),
        "os": said.get("os") or said.get("description") or image.filename or image.fingerprint[:12],
        "release": said.get("release", ""),
        "release_title": said.get("release_title") or said.get("release", ""),
        "version": said.get("version") or said.get("release", ""),
        "variant": said.get("variant", ""),
        "supported": True,
        "lxd_requirements": {
            key.removeprefix(_REQUIREMENT): value
            for key, value in said.items()
            if key.startswith(_REQUIREMENT)
        },
        "versions": {serial: {"label": said.get("label", ""), "items": _items(offer)}},
    }
    if image.HasField("expires_at"):
        product["support_eol"] = _day(image.expires_at.seconds)
    return product


def _serial(image: image_pb2.Image) -> str:
    """Return the name of the version, which must begin with a date."""
    if _SERIAL.fullmatch(image.properties.get("serial", "")):
        return str(image.properties["serial"])
    made = image.created_at.seconds or image.uploaded_at.seconds
    return time.strftime("%Y%m%d_%H%M", time.gmtime(made))


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(min(seconds, 253402300799)))


def _items(offer: share_pb2.Offer) -> dict[str, Any]:
    if len(offer.files) == 1:
        return {"lxd_combined.tar.gz": _item(offer, offer.files[0], "lxd_combined.tar.gz")}
    metadata, rootfs = offer.files
    # Whatever it is packed with: who downloads it looks at its first bytes, not at its name.
    kind, hash_name = "root.tar.xz", "combined_rootxz_sha256"
    if rootfs.filename.endswith(".squashfs"):
        kind, hash_name = "squashfs", "combined_squashfs_sha256"
    hashes = {hash_name: offer.image.fingerprint}
    if kind == "root.tar.xz":
        hashes["combined_sha256"] = offer.image.fingerprint
    return {
        "lxd.tar.xz": {**_item(offer, metadata, "lxd.tar.xz"), **hashes},
        kind: _item(offer, rootfs, kind),
    }


def _item(offer: share_pb2.Offer, file: share_pb2.File, kind: str) -> dict[str, Any]:
    return {
        "ftype": kind,
        "path": path(offer, file),
        "sha256": file.sha256,
        "size": file.size_bytes,
    }
