"""Keys of instances and profiles: which families there are beside the table, and what excludes each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.configkeys.instancekeys import ALIASES, KEYS, MACHINES, SYSCALLS
from core.configkeys.schema import Family, Parser, Schema, Sentences, lines, text
from core.configkeys.values import check_rlimit, check_sysctl, parse_uuid, parse_variable
from core.errors import Invalid
from core.units import parse_bool


def _variable(name: str, value: str) -> object:
    return parse_variable(value)


_WHOLE = """
apply_nvram apply_quota apply_template attached_volumes base_image cloud-init.instance-id cluster.group
evacuate.origin health idmap.base idmap.current idmap.next last_state.exit_code last_state.idmap
last_state.power last_state.ready restarts
uuid uuid.generation vsock_id
"""
_ENDS = """
.hwaddr .name .host_name .mtu .created .id .vlan .spoofcheck .last_state.vf.parent .apply_quota .ceph_rbd
.driver .uuid .last_state.created .last_state.hwaddr .last_state.mtu .last_state.ready
"""
_VOLATILE_WHOLE, _VOLATILE_ENDS = frozenset(_WHOLE.split()), tuple(_ENDS.split())


def _volatile(name: str, value: str) -> object:
    """Check volatile.NAME. Raises: Invalid in LXD's words, ValueError."""
    if name not in _VOLATILE_WHOLE and not name.endswith(_VOLATILE_ENDS):
        raise Invalid(
            "UNKNOWN_KEY", f"Unknown configuration key: volatile.{name[:64]}", about=f"volatile.{name[:64]}"
        )
    return parse_uuid(value) if name in ("uuid", "cloud-init.instance-id") else lines(value)


FAMILIES: Mapping[str, Parser | Family] = {
    "user.": Family(lambda _, value: lines(value), "free", applied="guest API"),
    "environment.": Family(
        _variable, "environment of init and of commands; init's at its next start", applied="/proc/1/environ"
    ),
    "limits.kernel.": Family(check_rlimit, "soft:hard limit of init and all below", False, "/proc/1/limits"),
    "linux.sysctl.": Family(
        check_sysctl, "kernel parameter of the instance's own namespaces", False, "/proc/sys"
    ),
    "cloud-init.ssh-keys.": Family(
        lambda _, value: text(value), "USER:KEY for cloud-init inside", False, "guest API"
    ),
}
_OWN: Mapping[str, Parser | Family] = {
    **FAMILIES,
    "image.": Family(
        lambda _, value: lines(value), "properties of the image it came from", applied="nothing"
    ),
    "volatile.": Family(_volatile, "what the server remembers", applied="see docs"),
}
_SENTENCES = Sentences(bad_value="{why}", unknown="Unknown configuration key: {name}")
INSTANCE = Schema("instance", KEYS, _OWN, aliases=ALIASES, sentences=_SENTENCES)
# What profiles may hold, and with it what profiles and instance say together.
PROFILE = Schema("profile", (*KEYS, *MACHINES), FAMILIES, aliases=ALIASES, sentences=_SENTENCES)
_EXPANDED = Schema("instance", (*KEYS, *MACHINES), _OWN, aliases=ALIASES, sentences=_SENTENCES)


def check_profile(config: Mapping[str, str]) -> None:
    """Raises: Invalid."""
    for name in config:
        for prefix in ("volatile.", "image."):
            if name.startswith(prefix):
                kind = prefix.rstrip(".").capitalize()
                raise Invalid("UNKNOWN_KEY", f"{kind} keys can only be set on instances", about=name[:80])
    PROFILE.check(config)
    check_together(config)


def check_expanded(config: Mapping[str, str]) -> None:
    """Check what profiles and the instance's own keys, which INSTANCE has checked, say together."""
    _EXPANDED.check(config)
    check_together(config)


def check_together(config: Mapping[str, str]) -> None:
    """Raises: Invalid for keys that exclude each other."""
    for old, new in ALIASES.items():
        if old in config and new in config:
            raise _exclusive(f"Mutually exclusive keys {new} and {old} are set", new)
    denies = _set(config, f"{SYSCALLS}deny") or any(
        _true(config, f"{SYSCALLS}deny_{name}") for name in ("default", "compat")
    )
    checks = [name for name in ("health.exec", "health.tcp", "health.http") if config.get(name)]
    if len(checks) > 1:
        raise _exclusive(f"Mutually exclusive keys {checks[0]} and {checks[1]} are set", checks[1])
    if _set(config, f"{SYSCALLS}allow") and denies:
        name = f"{SYSCALLS}allow"
        raise _exclusive(f"{name} is mutually exclusive with {SYSCALLS}deny*", name)


def _names(name: str) -> Iterable[str]:
    return (name, *(old for old, new in ALIASES.items() if new == name))


def _set(config: Mapping[str, str], name: str) -> bool:
    return any(config.get(n) for n in _names(name))


def _true(config: Mapping[str, str], name: str) -> bool:
    return any(parse_bool(config[n]) for n in _names(name) if config.get(n))


def _exclusive(message: str, name: str) -> Invalid:
    return Invalid("EXCLUSIVE_KEYS", message, about=name)
