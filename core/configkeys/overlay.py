"""Keys of overlay networks: those of bridges that hold on every member alike, and their own. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from core.configkeys.network import NETWORK
from core.configkeys.schema import ConfigKey, Schema, Sentences, lines, one_of
from core.configkeys.values import parse_port

_NOT_HERE = ("bridge.external_interfaces", "bridge.driver", "bridge.mode")
_ONE_HOST = "an interface joined to an overlay would join the networks of all members; use a bridge"
_LEAST, _MOST = 1, (1 << 24) - 1


def parse_id(value: str) -> int:
    if not (value.isascii() and value.isdigit()) or not _LEAST <= int(value[:9]) <= _MOST:
        raise ValueError(f"it must be a number from {_LEAST} to {_MOST}")
    return int(value)


OVERLAY = Schema(
    "network",
    (
        *(key for name, key in NETWORK.keys.items() if name not in _NOT_HERE),
        *(ConfigKey(name, refused=_ONE_HOST) for name in _NOT_HERE),
        ConfigKey("overlay.id", parse_id, "number on the wire (VNI); chosen when unset, and then for good"),
        ConfigKey("overlay.port", parse_port, "UDP port between members", "4789"),
        ConfigKey(
            "overlay.encryption", one_of("none", "ipsec"), "what keeps others from reading along", "none"
        ),
    ),
    {"user.": lines},
    {"tunnel.": "members are joined already; tunnels are for bridges"},
    sentences=Sentences(
        'Invalid value for network "{what}" option "{name}": {why}',
        'Invalid option for network "{what}" option "{name}"',
    ),
)
# What never changes, since members would not change it at the same moment.
FOR_GOOD = ("overlay.id", "overlay.port", "overlay.encryption")


def schema_of(type: str) -> Schema:
    return OVERLAY if type == "overlay" else NETWORK


def changed_for_good(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Return the name of a key that may not change and does; empty for none."""
    return next((k for k in FOR_GOOD if OVERLAY.get(old, k) != OVERLAY.get(new, k)), "")
