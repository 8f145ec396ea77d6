"""metadata.yaml of an image: parsed with bounds, checked. Pure.

The text comes from strangers: its size is bounded by the caller, aliases (YAML bombs) are refused.
"""

from __future__ import annotations

from typing import Any

import orjson
import yaml

from core.applications import checked_application
from core.architectures import ARCHITECTURES
from core.errors import Invalid
from core.templates import checked_properties, checked_templates
from services.image.domain.boundedyaml import load

MAX_BYTES = 1 << 20
_MAX_EVENTS = 20_000
_MAX_RECORD = 256 << 10
_YEAR_9999 = 253_402_300_799


def bad(why: str) -> Invalid:
    return Invalid("BAD_METADATA", f"The image's metadata.yaml is not usable: {why}")


def parse(text: bytes) -> dict[str, Any]:
    """Return the checked metadata: architecture, creation_date, expiry_date, properties, templates, oci.

    Raises: Invalid.
    """
    if len(text) > MAX_BYTES:
        raise bad("it is larger than 1 MiB")
    raw = load(text, yaml.CSafeLoader, most_events=_MAX_EVENTS, bad=bad)
    if not isinstance(raw, dict):
        raise bad("it is not a map")
    architecture = ARCHITECTURES.get(str(raw.get("architecture", "")))
    if architecture is None:
        raise bad(f"unknown architecture {str(raw.get('architecture'))[:40]!r}")
    created = _time(raw.get("creation_date"), "creation_date")
    if not created:
        raise bad("Missing creation date")
    checked = {
        "architecture": architecture,
        "creation_date": created,
        "expiry_date": _time(raw.get("expiry_date"), "expiry_date"),
        "properties": checked_properties(raw.get("properties"), bad),
        "templates": checked_templates(raw.get("templates"), bad),
    }
    if application := checked_application(raw.get("oci"), bad):
        checked["oci"] = application
    if len(orjson.dumps(checked)) > _MAX_RECORD:
        raise bad("it holds more than 256 KiB")
    return checked


def _time(raw: Any, what: str) -> int:
    """Return a time that a record, a message and a date can all hold."""
    if raw is None:
        return 0
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= _YEAR_9999:
        raise bad(f"{what} is not a time in seconds since 1970")
    return raw
