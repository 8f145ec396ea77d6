"""What the volatile keys of an instance say about its NICs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from core.configkeys.instance import INSTANCE
from core.configkeys.network import parse_mac
from core.errors import Invalid
from services.runtime.ports import NicPlan

EXIT_CODE = "volatile.last_state.exit_code"
READY = "volatile.last_state.ready"
"""What the guest said of itself since it was started, true or false."""
APPLY_TEMPLATE = "volatile.apply_template"
"""What the next start renders templates for: create, copy or rename."""
_OF_NIC = re.compile(
    r"volatile\.(?P<device>.+?)\.(?:hwaddr|host_name|name|last_state\.(?:created|hwaddr|mtu))"
)
_SETTABLE = re.compile(
    r"volatile\.(base_image|uuid|cloud-init\.instance-id|last_state\.power|apply_template|evacuate\.origin"
    r"|.+(?<!last_state)\.hwaddr)"
)
_WHILE_UP = (".host_name", ".last_state.created", ".last_state.hwaddr", ".last_state.mtu")


def of_nic(nic: NicPlan) -> dict[str, str]:
    """Return the keys of a NIC of a running instance."""
    return {f"volatile.{nic.device}.{name}": value for name, value in nic.volatile.items()}


def with_nics(volatile: Mapping[str, str], nics: Iterable[NicPlan], *, is_up: bool) -> dict[str, str]:
    """Return *volatile* with the keys of exactly *nics*; a stopped instance has nothing on the host."""
    kept = {key: value for key, value in volatile.items() if not _OF_NIC.fullmatch(key)}
    for nic in nics:
        kept |= of_nic(nic)
    return kept if is_up else when_down(kept)


def when_down(volatile: Mapping[str, str]) -> dict[str, str]:
    """Return *volatile* without the keys of NICs that only a running instance has."""
    return {
        key: value
        for key, value in volatile.items()
        if not (_OF_NIC.fullmatch(key) and key.endswith(_WHILE_UP))
    }


def plugged(volatile: Mapping[str, str]) -> set[str]:
    """Return the devices whose NICs a running instance has."""
    matches = [_OF_NIC.fullmatch(key) for key in volatile if key.endswith(".host_name")]
    return {match["device"] for match in matches if match}


def hwaddrs_of(volatile: Mapping[str, str]) -> dict[str, str]:
    """Return the keys that name MAC addresses."""
    return {k: v for k, v in volatile.items() if _OF_NIC.fullmatch(k) and k.endswith(".hwaddr")}


def awaiting(volatile: Mapping[str, str], trigger: str) -> dict[str, str]:
    """Return *volatile* with templates of *trigger* due at the next start, unless some are already."""
    return {APPLY_TEMPLATE: trigger, **volatile}


def asked(wanted: Mapping[str, str], now: Mapping[str, str], *, merge: bool) -> dict[str, str]:
    """Return the keys that a request to change an instance sets anew; the others are the server's to write.

    Raises: Invalid for unknown keys and bad values, and when the id map would be lost, as LXD does.
    """
    own = {key: value for key, value in wanted.items() if key.startswith("volatile.")}
    for key in now:
        # Who sends none at all did not read them before, and deletes nothing.
        if key.startswith("volatile.idmap.") and not own.get(key, "" if own and not merge else now[key]):
            raise Invalid("VOLATILE_STAYS", "Volatile idmap keys can't be deleted by the user", about=key)
    changed = {key: value for key, value in own.items() if value and now.get(key) != value}
    INSTANCE.check(changed)
    return {key: checked(key, value) for key, value in changed.items() if _SETTABLE.fullmatch(key)}


def checked(key: str, value: str) -> str:
    """Return the value of a volatile key as it is recorded. Raises: Invalid."""
    try:
        return parse_mac(value) if key.endswith(".hwaddr") else value
    except ValueError as exc:
        raise Invalid("BAD_VALUE", str(exc), about=key) from None
