"""The tables of keys for people and programs: the page docs/config-keys.md, and LXD's metadata.

Pure. `python -m core.configkeys.render` prints the page; a test compares it with the one that is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from core.configkeys import instance, instancekeys
from core.configkeys.network import NETWORK
from core.configkeys.others import SERVER
from core.configkeys.project import PROJECT
from core.configkeys.schema import ConfigKey, Schema

# By the name of the parser; what is not here is a string.
_TYPES = {
    "parse_bool": "bool",
    "parse_int": "integer",
    "parse_priority": "integer",
    "parse_uint32": "integer",
}
_TYPES |= dict.fromkeys(("parse_count", "parse_port", "parse_tries", "parse_seconds"), "integer")
_TYPES |= {"parse_some_seconds": "integer"}
_SCHEMAS = {"instance": instance.INSTANCE, "network-bridge": NETWORK, "project": PROJECT, "server": SERVER}
_HEAD = """\
# Configuration keys of instances and profiles

Written from the table in `core/configkeys/instancekeys.py` by `make docs`; a test compares. *Live* keys reach
running instances at once; the others are stored and take effect at the next start, as with LXD. *Read at*
names where the effect can be seen: a cgroup file (of v1; of v2), a file inside, or the part that acts on it.
`GET /1.0/metadata/configuration` answers with the same as JSON.
"""
_REFUSED = """\
## Not supported, because

Refused wherever they are written, with this reason. A switch that can only be off may be written as `false`.
"""
_MACHINES = """\
## Of virtual machines

Profiles may hold these, since they serve both kinds; on a container they are unknown, as with LXD.
"""


def type_of(key: ConfigKey) -> str:
    return _TYPES.get(getattr(key.parse, "__name__", ""), "string")


def metadata() -> dict[str, Any]:
    """Return all keys in the shape of LXD's /1.0/metadata/configuration."""
    return {"configs": {name: _groups(schema) for name, schema in _SCHEMAS.items()}}


def _groups(schema: Schema) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for key in _supported(schema.keys.values()):
        group = key.name.partition(".")[0] if "." in key.name else "miscellaneous"
        groups.setdefault(group, {"keys": []})["keys"].append({key.name: _described(key)})
    for prefix, family in schema.families.items():
        described = {
            "type": "string",
            "shortdesc": family.doc,
            "longdesc": "",
            "liveupdate": _word(family.live),
        }
        groups.setdefault(prefix.rstrip("."), {"keys": []})["keys"].append({f"{prefix}*": described})
    return groups


def _supported(keys: Iterable[ConfigKey]) -> Iterator[ConfigKey]:
    return (key for key in keys if not key.refused)


def _described(key: ConfigKey) -> dict[str, str]:
    return {
        "type": type_of(key),
        "defaultdesc": f"`{key.default}`" if key.default else "",
        "liveupdate": _word(key.live),
        "shortdesc": key.doc,
        "longdesc": f"Read at: {key.applied}" if key.applied else "",
    }


def _word(is_live: bool) -> str:
    return "yes" if is_live else "no"


def page() -> str:
    """Return docs/config-keys.md."""
    keys = [key for key in instancekeys.KEYS if not key.refused and not _is_off(key)]
    rows = [_row(f"`{k.name}`", type_of(k), k.default, k.live, k.doc, k.applied) for k in keys]
    families = [
        _row(f"`{prefix}*`", "string", "", family.live, family.doc, family.applied)
        for prefix, family in instance.INSTANCE.families.items()
    ]
    refused = [
        f"| `{key.name}` | {key.refused or key.doc} |"
        for key in instancekeys.KEYS
        if key.refused or _is_off(key)
    ]
    aliases = [f"| `{old}` | `{new}` |" for old, new in instancekeys.ALIASES.items()]
    machines = [f"`{key.name}`" for key in instancekeys.MACHINES]
    head = "| key | type | default | live | meaning | read at |\n|---|---|---|---|---|---|\n"
    parts = [
        _HEAD,
        head + "\n".join([*rows, *families]) + "\n",
        "## Other names of the same\n\n| name | is |\n|---|---|\n" + "\n".join(aliases) + "\n",
        _REFUSED + "\n| key | reason |\n|---|---|\n" + "\n".join(refused) + "\n",
        _MACHINES + "\n" + ", ".join(machines) + "\n",
    ]
    return "\n".join(parts)


def _is_off(key: ConfigKey) -> bool:
    return key.doc.startswith("can only be false")


def _row(name: str, kind: str, default: str, is_live: bool, doc: str, applied: str) -> str:
    shown = (doc.replace("|", "\\|"), applied.replace("|", "\\|"))
    return f"| {name} | {kind} | {default and f'`{default}`'} | {_word(is_live)} | {shown[0]} | {shown[1]} |"


if __name__ == "__main__":
    print(page(), end="")
