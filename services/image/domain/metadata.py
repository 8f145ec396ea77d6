"""metadata.yaml of an image: parsed with bounds, checked. Pure.

The text comes from strangers: its size is bounded by the caller, aliases (YAML bombs) are refused.
"""

from __future__ import annotations

from typing import Any

import yaml

from core.errors import Invalid

MAX_BYTES = 1 << 20
_MAX_EVENTS = 20_000
_ARCHITECTURES = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "arm64": "aarch64",
    "aarch64": "aarch64",
    "i386": "i686",
    "i686": "i686",
    "armhf": "armv7l",
    "armv7l": "armv7l",
    "armv6l": "armv6l",
    "armv8l": "armv8l",
    "ppc64el": "ppc64le",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "riscv32": "riscv32",
}


def bad(why: str) -> Invalid:
    return Invalid("BAD_METADATA", f"The image's metadata.yaml is not usable: {why}")


def parse(text: bytes) -> dict[str, Any]:
    """Return the checked metadata: architecture, creation_date, expiry_date, properties, templates.

    Raises: Invalid.
    """
    if len(text) > MAX_BYTES:
        raise bad("it is larger than 1 MiB")
    raw = _load(text)
    if not isinstance(raw, dict):
        raise bad("it is not a map")
    architecture = _ARCHITECTURES.get(str(raw.get("architecture", "")))
    if architecture is None:
        raise bad(f"unknown architecture {str(raw.get('architecture'))[:40]!r}")
    created = raw.get("creation_date")
    if not isinstance(created, int) or isinstance(created, bool) or created <= 0:
        raise bad("Missing creation date")
    expiry = raw.get("expiry_date") or 0
    return {
        "architecture": architecture,
        "creation_date": created,
        "expiry_date": expiry if isinstance(expiry, int) else 0,
        "properties": _properties(raw.get("properties")),
        "templates": _templates(raw.get("templates")),
    }


def _load(text: bytes) -> Any:
    try:
        for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise bad("aliases are not allowed")
            if count > _MAX_EVENTS:
                raise bad("it is too complex")
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise bad("it is not YAML") from exc


def _properties(raw: Any) -> dict[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise bad("properties is not a map")
    return {str(k): str(v) for k, v in raw.items() if not isinstance(v, dict | list)}


def _templates(raw: Any) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(t, dict) for t in raw.values()):
        raise bad("templates is not a map of maps")
    return {str(path): template for path, template in raw.items()}
