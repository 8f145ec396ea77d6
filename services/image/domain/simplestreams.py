"""What a simplestreams server offers, read from its index and product files. Pure.

Source of the format: what image servers publish (index:1.0, products:1.0), and how LXD 5.0.2 reads it:
an item says by its ftype what it is, and the one that holds the metadata has the combined hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.architectures import ARCHITECTURES
from core.errors import Invalid, NotFound, Unsupported
from core.names import is_fingerprint

_UNIFIED = ("lxd_combined.tar.gz", "incus_combined.tar.gz")
_METADATA = ("lxd.tar.xz", "incus.tar.xz")
# The root file systems that a container can have, best first, and the hashes of both parts together.
_ROOTS = {
    "squashfs": ("combined_squashfs_sha256",),
    "root.tar.xz": ("combined_rootxz_sha256", "combined_sha256"),
}
_MACHINES = frozenset({"disk-kvm.img", "disk1.img", "uefi1.img", "disk.qcow2"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d{8}")
_MOST_PRODUCTS = 100_000
_MOST_FILES = 100


@dataclass(frozen=True)
class File:
    """One file of an image. path is below the server's address; part as in the image service."""

    part: str
    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Offer:
    """One image that a server offers."""

    fingerprint: str
    version: str
    architecture: str
    aliases: tuple[str, ...]
    files: tuple[File, ...]
    properties: dict[str, str] = field(default_factory=dict)
    is_machine: bool = False
    """It is for virtual machines, and has no files that could be brought."""


def product_paths(index: Any) -> list[str]:
    """Return where the product files lie, from a parsed index. Raises: Invalid."""
    entries = _map(_map(index, "its index").get("index"), "its index")
    found = []
    for entry in entries.values():
        if isinstance(entry, dict) and entry.get("datatype") == "image-downloads" and entry.get("products"):
            found.append(checked_path(entry.get("path")))
    if len(found := list(dict.fromkeys(found))) > _MOST_FILES:
        raise _bad(f"its index names more than {_MOST_FILES} lists of products")
    return found


def offers(products: Any) -> Iterator[Offer]:
    """Yield the container images of a parsed product file; what is not understood is left out."""
    all_of_them = _map(_map(products, "its list of products").get("products"), "its list of products")
    if len(all_of_them) > _MOST_PRODUCTS:
        raise _bad(f"it lists more than {_MOST_PRODUCTS} products")
    for product in all_of_them.values():
        if not isinstance(product, dict):
            continue
        versions = product.get("versions")
        for version, content in (versions if isinstance(versions, dict) else {}).items():
            if _VERSION.match(version) and isinstance(content, dict):
                yield from _offers_of(product, version, content)


def pick(found: list[Offer], wanted: str, architecture: str) -> Offer:
    """Return the newest image of an alias, or the one of a fingerprint or its beginning.

    An alias without architecture means this host's; `NAME/amd64` any. Raises: NotFound, Invalid, Unsupported.
    """
    newest = sorted(
        (offer for offer in found if not offer.is_machine), key=lambda offer: offer.version, reverse=True
    )
    native = [offer for offer in newest if offer.architecture == architecture]
    for offer in native:
        if wanted in offer.aliases:
            return offer
    name, _, arch = wanted.rpartition("/")
    for offer in newest:
        if name in offer.aliases and offer.architecture == ARCHITECTURES.get(arch, arch):
            return offer
    if is_fingerprint(wanted) and (chosen := _of_fingerprint(newest, wanted)):
        return chosen
    if any(wanted in offer.aliases or name in offer.aliases for offer in found if offer.is_machine):
        words = f"{wanted[:80]!r} is an image of virtual machines, which are not supported"
        raise Unsupported("NO_VMS", words, about=wanted[:80])
    raise NotFound("NO_IMAGE", f"The server offers no image {wanted[:80]!r} for {architecture}", about=wanted)


def _of_fingerprint(offers: list[Offer], wanted: str) -> Offer | None:
    """Raises: Invalid, where several images have such a beginning."""
    found = {offer.fingerprint: offer for offer in offers if offer.fingerprint.startswith(wanted)}
    if len(found) > 1:
        words = f"More than one image of the server matches {wanted!r}; give more digits"
        raise Invalid("AMBIGUOUS", words, about=wanted)
    return next(iter(found.values()), None)


def _offers_of(product: dict[str, Any], version: str, content: dict[str, Any]) -> Iterator[Offer]:
    items = content.get("items")
    by_kind = {
        str(item.get("ftype")): item
        for item in (items if isinstance(items, dict) else {}).values()
        if isinstance(item, dict)
    }
    for kind in _UNIFIED:
        if kind in by_kind and (file := _file("unified", by_kind[kind])):
            yield _offer(product, version, content, file.sha256, (file,), "tar.gz")
    for metadata_kind in _METADATA:
        metadata = _file("metadata", by_kind.get(metadata_kind, {}))
        for root_kind, names in _ROOTS.items():
            root = _file("rootfs", by_kind.get(root_kind, {}))
            fingerprint = _first_hash(by_kind.get(metadata_kind, {}), names)
            if metadata and root and fingerprint:
                yield _offer(product, version, content, fingerprint, (metadata, root), root_kind)
    if not _MACHINES.isdisjoint(by_kind):
        yield replace(_offer(product, version, content, "", (), ""), is_machine=True)


def _offer(
    product: Mapping[str, Any],
    version: str,
    content: Mapping[str, Any],
    fingerprint: str,
    files: tuple[File, ...],
    kind: str,
) -> Offer:
    arch, label = _text(product, "arch"), _text(content, "label")
    words = (_text(product, "os"), _text(product, "release_title"), arch, f"({label})" if label else "")
    properties = {
        "description": " ".join([*filter(None, words), f"({version})"]),
        "architecture": arch,
        "os": _text(product, "os"),
        "release": _text(product, "release"),
        "version": _text(product, "version"),
        "variant": _text(product, "variant"),
        "label": label,
        "serial": version,
        "type": kind,
    }
    requirements = product.get("lxd_requirements") or product.get("requirements")
    for name, value in (requirements if isinstance(requirements, dict) else {}).items():
        properties[f"requirements.{str(name)[:64]}"] = str(value)[:256]
    aliases = tuple(alias.strip() for alias in _text(product, "aliases").split(",") if alias.strip())
    return Offer(
        fingerprint,
        version,
        ARCHITECTURES.get(arch, arch),
        aliases,
        files,
        {name: value for name, value in properties.items() if value},
    )


def _file(part: str, item: Mapping[str, Any]) -> File | None:
    sha256, size = str(item.get("sha256", "")), item.get("size")
    if not _SHA256.fullmatch(sha256) or not isinstance(size, int) or size <= 0 or not item.get("path"):
        return None
    return File(part, checked_path(item["path"]), sha256, size)


def _first_hash(item: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((str(item[name]) for name in names if _SHA256.fullmatch(str(item.get(name, "")))), "")


def checked_path(path: Any) -> str:
    """Return a path that stays below the server's address. Raises: Invalid."""
    text = str(path or "")
    parts = text.split("/")
    if not text or len(text) > 4096 or ".." in parts or ":" in parts[0] or text.startswith("/"):
        raise _bad(f"it names the file {text[:80]!r}")
    return text


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return str(value)[:4096] if isinstance(value, str | int | float) else ""


def _map(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{what} is no object")
    return value


def _bad(why: str) -> Invalid:
    return Invalid("BAD_SERVER", f"The image server's answer is not usable: {why}")
