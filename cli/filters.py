"""The filters of `podium list`: name prefixes, regular expressions, KEY=VALUE. Pure.

Source: lxc 5.0.2, lxc/list.go: shouldShow, evaluateShorthandFilter, dotPrefixMatch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def is_shown(instance: dict[str, Any], filters: Sequence[str]) -> bool:
    return all(_passes(instance, text) for text in filters)


def _passes(instance: dict[str, Any], text: str) -> bool:
    key, equals, value = text.partition("=")
    if equals:
        return _shorthand(instance, key, value) or _has_config(instance, key, value)
    name: str = instance["name"]
    return name.startswith(text) or _matches(text, name)


def _matches(pattern: str, text: str) -> bool:
    if "^" not in pattern and "$" not in pattern:
        pattern = f"^{pattern}$"
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern.strip("^$") == text


def _has_config(instance: dict[str, Any], key: str, value: str) -> bool:
    config = instance.get("expanded_config") or {}
    return any(is_short_for(key, full) and _matches(value, found) for full, found in config.items())


def is_short_for(short: str, full: str) -> bool:
    """Tell whether u.role stands for user.role."""
    parts, wholes = short.split("."), full.split(".")
    return len(parts) == len(wholes) and all(w.startswith(p) for p, w in zip(parts, wholes, strict=True))


def _shorthand(instance: dict[str, Any], key: str, value: str) -> bool:
    values = value.split(",")
    if key in ("type", "status", "architecture", "location"):
        return str(instance.get(key, "")).lower() in [item.lower() for item in values]
    if key in ("ipv4", "ipv6"):
        family = "inet" if key == "ipv4" else "inet6"
        return any(_in_network(address, item) for address in addresses(instance, family) for item in values)
    return False


def _in_network(address: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def addresses(instance: dict[str, Any], family: str) -> list[str]:
    networks = ((instance.get("state") or {}).get("network") or {}).values()
    return [a["address"] for network in networks for a in network["addresses"] if a["family"] == family]
