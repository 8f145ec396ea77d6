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


def ensure(nics: Iterable[NicReservation], targets: set[str]) -> None:
    """Let just those of *nics* hear themselves that have one of *targets*, the addresses listened for."""
    is_seen = bool(targets) and sysctls.is_bridged_seen()
    for nic in nics:
        path = _SYS / nic.host_name / "brport" / "hairpin_mode"
        wanted = "1" if is_seen and targets & {nic.ipv4, nic.ipv6} else "0"
        with contextlib.suppress(OSError):  # it is not plugged in
            if nic.host_name and path.read_text().strip() != wanted:
                path.write_text(wanted)
