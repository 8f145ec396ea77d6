"""What an OCI registry says: names, manifests, indexes and configurations, read within bounds. Pure.

Source: the OCI image and distribution specifications, and the older media types of Docker that mean the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from core.applications import is_variable, signal_number
from core.errors import Invalid, NotFound

MANIFEST_MOST = 4 << 20
CONFIG_MOST = 8 << 20
MOST_LAYERS = 256
MOST_BYTES = 64 << 30
MOST_DEPTH = 3
"""How many indexes may lie above a manifest."""
_MOST_OFFERS = 1024

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_LAYERS = (
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
)
ACCEPT = ", ".join((*_MANIFESTS, *_INDEXES))

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
# What registries call the machines that this may run on; with the variant where one name stands for several.
_MACHINES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "x86_64": ("amd64", ("", "v1")),
    "aarch64": ("arm64", ("", "v8")),
    "armv7l": ("arm", ("v7", "v6", "v5", "")),
    "i686": ("386", ("",)),
    "ppc64le": ("ppc64le", ("",)),
    "s390x": ("s390x", ("",)),
    "riscv64": ("riscv64", ("",)),
}


def bad(why: str) -> Invalid:
    return Invalid("BAD_REGISTRY", f"The registry's image is not usable: {why}")


@dataclass(frozen=True)
class Reference:
    """An image in a registry; tag_or_digest is what its manifest is asked by."""

    name: str
    tag_or_digest: str

    @property
    def is_pinned(self) -> bool:
        return ":" in self.tag_or_digest

    @property
    def shown(self) -> str:
        return f"{self.name}{'@' if self.is_pinned else ':'}{self.tag_or_digest}"


@dataclass(frozen=True)
class Blob:
    """One file of a registry."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True)
class Manifest:
    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True)
class Config:
    """How the image is to be run. user: as it stands there; created_at: unix seconds."""

    architecture: str
    created_at: int
    diff_ids: tuple[str, ...]
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    cwd: str = "/"
    stop_signal: str = "SIGTERM"
    ports: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


def parse_reference(server: str, wanted: str) -> Reference:
    """Return what *wanted* ("debian:12", "app@sha256:…") is, below the path of *server*. Raises: Invalid."""
    name, at, digest = wanted.partition("@")
    leaf = name.rpartition("/")[2]
    name, _, tag = name.rpartition(":") if ":" in leaf else (name, "", "latest")
    whole = "/".join(filter(None, (urlsplit(server).path.strip("/"), name)))
    if not _NAME.fullmatch(whole) or len(whole) > 255:
        raise Invalid("BAD_NAME", f"{whole[:120]!r} is no name of an image in a registry", about="alias")
    if at:
        return Reference(whole, checked_digest(digest))
    if not _TAG.fullmatch(tag):
        raise Invalid("BAD_TAG", f"{tag[:140]!r} is no tag of an image in a registry", about="alias")
    return Reference(whole, tag)


def checked_digest(text: Any) -> str:
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise bad(f"{str(text)[:80]!r} is no digest by SHA-256 or SHA-512")
    return text


def hasher(digest: str) -> hashlib._Hash:
    return hashlib.new(digest.partition(":")[0])


def digest_of(data: bytes, like: str = "sha256:") -> str:
    """Return the digest of *data* by the algorithm of *like*."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise bad(f"{what} is no JSON") from None
    if not isinstance(found, dict):
        raise bad(f"{what} is no JSON object")
    return found


def choose(raw: Mapping[str, Any], architecture: str) -> Blob | None:
    """Return which manifest of an index is for this machine; None where *raw* is no index.

    Raises: Invalid, NotFound.
    """
    kind = raw.get("mediaType")
    if kind not in _INDEXES and not (kind is None and "manifests" in raw):
        return None
    offers = raw.get("manifests")
    if not isinstance(offers, list) or len(offers) > _MOST_OFFERS:
        raise bad(f"its index is no list of at most {_MOST_OFFERS} manifests")
    name, variants = _MACHINES.get(architecture, (architecture, ("",)))
    found = [(rank, offer) for offer in offers if (rank := _rank(offer, name, variants)) is not None]
    if not found:
        raise NotFound("NO_ARCHITECTURE", f"The registry has no such image for {architecture} on Linux")
    return _blob(min(found, key=lambda pair: pair[0])[1], MANIFEST_MOST)


def _rank(offer: Any, name: str, variants: tuple[str, ...]) -> int | None:
    """Return how well an offer fits, 0 for best; None for not at all."""
    platform = offer.get("platform") if isinstance(offer, dict) else None
    if platform is None and isinstance(offer, dict) and offer.get("mediaType") in (*_MANIFESTS, *_INDEXES):
        return len(variants)
    if not isinstance(platform, dict) or (platform.get("os"), platform.get("architecture")) != (
        "linux",
        name,
    ):
        return None
    variant = platform.get("variant") or ""
    return variants.index(variant) if variant in variants else None


def parse_manifest(raw: Mapping[str, Any]) -> Manifest:
    """Raises: Invalid."""
    if raw.get("schemaVersion") != 2:
        raise bad("its manifest is not of schema version 2; push it again with a current tool")
    if raw.get("mediaType", _MANIFESTS[0]) not in _MANIFESTS:
        raise bad(f"its manifest has the unknown type {str(raw.get('mediaType'))[:80]!r}")
    config, layers = _blob(raw.get("config"), CONFIG_MOST), raw.get("layers")
    if config.media_type not in _CONFIGS:
        raise bad(f"it holds {config.media_type[:80]!r}, not a file system to run")
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        raise bad(f"it has more than {MOST_LAYERS} layers, or no list of them")
    found = tuple(_blob(layer, MOST_BYTES) for layer in layers)
    for layer in found:
        if not layer.media_type.startswith(_LAYERS):
            raise bad(f"a layer has the unknown type {layer.media_type[:80]!r}")
    if sum(layer.size for layer in found) > MOST_BYTES:
        raise bad(f"its layers are larger than {MOST_BYTES} bytes")
    return Manifest(config, found)


def _blob(raw: Any, most: int) -> Blob:
    if not isinstance(raw, dict):
        raise bad("its manifest names a file without saying which")
    size = raw.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= most:
        raise bad(f"its manifest names a file whose size is not between 0 and {most} bytes")
    return Blob(checked_digest(raw.get("digest")), size, str(raw.get("mediaType", "")))


def parse_config(raw: Mapping[str, Any], manifest: Manifest) -> Config:
    """Raises: Invalid."""
    run = raw.get("config") or {}
    rootfs = raw.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(run, dict) or not isinstance(diff_ids, list):
        raise bad("its configuration is incomplete")
    if len(diff_ids) != len(manifest.layers):
        raise bad(
            f"its configuration tells of {len(diff_ids)} layers, its manifest of {len(manifest.layers)}"
        )
    if raw.get("os", "linux") != "linux":
        raise bad(f"it is for {str(raw.get('os'))[:40]!r}, not for Linux")
    cwd = f"/{_text(run.get('WorkingDir')).lstrip('/')}"
    if ".." in cwd.split("/"):
        raise bad(f"its working folder {cwd[:80]!r} leads out of where it is")
    return Config(
        architecture=_machine(raw),
        created_at=_time(raw.get("created")),
        diff_ids=tuple(map(checked_digest, diff_ids)),
        command=(*_texts(run.get("Entrypoint")), *_texts(run.get("Cmd"))),
        environment=_environment(_texts(run.get("Env"))),
        user=_text(run.get("User")),
        cwd=cwd,
        stop_signal=_signal(_text(run.get("StopSignal"))),
        ports=tuple(sorted(map(str, run["ExposedPorts"])))[:256]
        if isinstance(run.get("ExposedPorts"), dict)
        else (),
        labels={k: v for k, v in (run.get("Labels") or {}).items() if isinstance(v, str)}
        if isinstance(run.get("Labels"), dict)
        else {},
    )


def _machine(raw: Mapping[str, Any]) -> str:
    """Return the kernel's name of an architecture. Raises: Invalid."""
    name, variant = raw.get("architecture"), raw.get("variant") or ""
    for machine, (theirs, variants) in _MACHINES.items():
        if name == theirs and (variant in variants or not variant):
            return machine
    raise bad(f"it is for the unknown architecture {str(name)[:40]!r}")


def _time(raw: Any) -> int:
    """Return when it was made; 1 where that is not said, since no image here is without a date."""
    try:
        return max(1, int(datetime.fromisoformat(str(raw)).timestamp()))
    except (ValueError, OverflowError):
        return 1


def _text(raw: Any) -> str:
    if raw is None:
        return ""
    if not isinstance(raw, str) or len(raw) > 4096:
        raise bad("its configuration has a text that is none, or too long")
    return raw


def _texts(raw: Any) -> tuple[str, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list) or not all(isinstance(text, str) for text in raw):
        raise bad("its configuration has a list that is none of texts")
    return tuple(raw)


def _environment(rows: tuple[str, ...]) -> dict[str, str]:
    """Return the variables that can be handed over; one with a line break in it is left out."""
    pairs = (row.partition("=")[::2] for row in rows)
    return {name: value for name, value in pairs if is_variable(name, value)}


def _signal(text: str) -> str:
    try:
        return text if text and signal_number(text) else "SIGTERM"
    except ValueError as exc:
        raise bad(str(exc)) from None
