"""What a change leaves as it was does not stand in its way, though the host refuses it.

A profile is saved also where an instance cannot follow it, and what a device needs may go while it is
used. LXD brings to the host what differs, and nothing else; here all of it is made so, by the same words:
what is new must be carried out, and what was asked for before is tried.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set

from core.errors import Invalid, NotFound, PodiumError, WrongState
from core.logs import get_logger
from core.policy.expansion import Expanded
from services.runtime.usecases.peers import Reserved

log = get_logger(__name__)
_REFUSALS = (Invalid, NotFound, WrongState)
Devices = Mapping[str, Mapping[str, str]]
Nics = dict[str, dict[str, str]]


def devices(now: Devices, had: Expanded | None) -> frozenset[str]:
    """Return the names of those that are as they were; none where nothing was before."""
    before = had.devices if had else {}
    return frozenset(name for name, options in now.items() if before.get(name) == options)


def is_same(now: Expanded, had: Expanded, *, type: str) -> bool:
    """Say whether the devices of a type are the same."""
    found = [{n: o for n, o in one.devices.items() if o.get("type") == type} for one in (now, had)]
    return found[0] == found[1]


def check(
    look: Callable[[Mapping[str, str]], object], config: Mapping[str, str], had: Mapping[str, str] | None
) -> None:
    """Raises: Invalid where *look* refuses *config*, unless it refused *had* in the same words."""
    try:
        look(config)
    except Invalid as exc:
        if had is None or _refusal(look, had) != exc.message:
            raise


async def reserve(ask: Callable[[Nics], Awaitable[Reserved]], nics: Nics, *, optional: Set[str]) -> Reserved:
    """Reserve all NICs that can be; only an optional one may be left out. Raises: as *ask*."""
    try:
        return await ask(nics)
    except _REFUSALS:
        if not optional & nics.keys():
            raise
    chosen = {device: options for device, options in nics.items() if device not in optional}
    reserved = await ask(chosen)
    for device in sorted(optional & nics.keys()):
        try:
            reserved = await ask({**chosen, device: nics[device]})
        except _REFUSALS as exc:
            log.warning("nic_left_out", device=device, error=exc.message)
            reserved = await ask(chosen)
        else:
            chosen[device] = nics[device]
    return reserved


def _refusal(look: Callable[[Mapping[str, str]], object], config: Mapping[str, str]) -> str:
    try:
        look(config)
    except PodiumError as exc:
        return exc.message
    return ""
