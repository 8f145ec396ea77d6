"""Guests that ask for themselves by a listen address of their network. Blocking, shortly.

Where the kernel shows bridged packets to the IP firewall, the translated packet never leaves the bridge,
which gives nothing back through the port that it came by unless told to. Source: br_nf_pre_routing_finish
(net/bridge/br_netfilter_hooks.c) and should_deliver (net/bridge/br_forward.c).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from core.records import NicReservation
from services.network.kernel import sysctls

_SYS = Path("/sys/class/net")


def wrong(nics: Iterable[NicReservation], targets: set[str]) -> dict[str, bool]:
    """Return the ports that are other than they should be, by name, and how they should be.

    Just those of *nics* hear themselves that have one of *targets*, the addresses listened for.
    """
    is_seen, found = bool(targets) and sysctls.is_bridged_seen(), dict[str, bool]()
    for nic in nics:
        wanted = is_seen and not targets.isdisjoint({nic.ipv4, nic.ipv6})
        with contextlib.suppress(OSError):  # it is not plugged in
            path = _SYS / (nic.host_name or "none") / "brport" / "hairpin_mode"
            if path.read_text().strip() != str(int(wanted)):
                found[nic.host_name] = wanted
    return found
