"""What metadata.yaml may say about properties and templates, wherever it comes from. Pure.

One entry of templates: path in the guest -> when (triggers), template (a plain file name), create_only,
properties.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST_TEMPLATES, MOST_TRIGGERS = 256, 16
MOST_TEMPLATE_BYTES = 256 << 10
Refuse = Callable[[str], Exception]


def checked_properties(raw: Any, bad: Refuse) -> dict[str, str]:
    """Return a map of texts. Raises: what *bad* makes of a sentence."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise bad("properties is not a map")
    return {str(k): _text(v) for k, v in raw.items() if not isinstance(v, dict | list)}


def _text(value: Any) -> str:
    """Return a scalar as it stands in the YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def checked_templates(raw: Any, bad: Refuse) -> dict[str, Any]:
    """Return templates by path. Raises: what *bad* makes of a sentence."""
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(t, dict) for t in raw.values()):
        raise bad("templates is not a map of maps")
    if len(raw) > MOST_TEMPLATES:
        raise bad(f"it names more than {MOST_TEMPLATES} templates")
    return {_guest_path(path, bad): _template(template, bad) for path, template in raw.items()}


def _guest_path(path: Any, bad: Refuse) -> str:
    is_plain = isinstance(path, str) and path.startswith("/") and path.isprintable() and len(path) <= 4096
    if not is_plain or ".." in path.split("/") or not path.strip("/"):
        raise bad(f"the template path {str(path)[:80]!r} is not absolute")
    return str(path)


def is_template_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and 0 < len(name) < 256
        and "/" not in name
        and name.isprintable()
        and name not in (".", "..")
    )


def _template(raw: dict[Any, Any], bad: Refuse) -> dict[str, Any]:
    name, when = raw.get("template"), raw.get("when") or []
    if not is_template_name(name):
        raise bad(f"the template file {str(name)[:80]!r} is not a plain name")
    if not isinstance(when, list):
        raise bad("when of a template is not a list")
    return {
        # Also what is no trigger: who edits sees what was typed.
        "when": [trigger[:64] for trigger in when[:MOST_TRIGGERS] if isinstance(trigger, str)],
        "template": name,
        "create_only": raw.get("create_only") is True,
        "properties": checked_properties(raw.get("properties"), bad),
    }
