"""How each network is on each member of a cluster, and on this one, for who asks and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.metrics import GaugeMetricFamily
from core.records import PASSING
from core.state import keys
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks

AVAILABLE, PENDING, ERRORED, UNREACHABLE = "Available", "Pending", "Errored", "Unreachable"


@dataclass(frozen=True)
class Wellbeing:
    member: str
    status: str
    error: str = ""


def on_members(store: NetworkStore, networks: Networks, name: str) -> list[Wellbeing]:
    """Return how a managed network is on each member; nothing where this one is alone."""
    if not store.others() or networks.find(name) is None:
        return []
    return [_on(store, networks, name, entry.record.name) for entry in store.members.entries()]


def _on(store: NetworkStore, networks: Networks, name: str, member: str) -> Wellbeing:
    if member == store.member:
        error = networks.errors.get(name, "")
        return Wellbeing(member, ERRORED if error else AVAILABLE, error)
    if store.presence.get(keys.presence(member, "network")) is None:
        return Wellbeing(member, UNREACHABLE)
    told = store.health.get(keys.network_health(name, member))
    if told is None:
        return Wellbeing(member, PENDING)
    error = told.record.error
    return Wellbeing(member, ERRORED if error else AVAILABLE, error)


class Gauges:
    """What /metrics of this member's network service tells of networks."""

    def __init__(self, store: NetworkStore, networks: Networks) -> None:
        self._store = store
        self._networks = networks

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing is asked before it is started."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        is_up = GaugeMetricFamily("podium_network_up", "Whether a network is up here", labels=["network"])
        guests = GaugeMetricFamily(
            "podium_network_nics", "NICs on a network, by where they are", labels=["network", "where"]
        )
        for entry in self._networks.entries():
            network = entry.record
            if network.status in PASSING:
                continue
            is_up.add_metric([network.name], float(network.name not in self._networks.errors))
            nics = self._store.nics_on(network.name)
            here = sum(self._store.is_local(nic) for nic in nics)
            guests.add_metric([network.name, "here"], here)
            guests.add_metric([network.name, "elsewhere"], len(nics) - here)
        yield is_up
        yield guests
