"""What a network may be: its configuration checked against what there is, with addresses chosen."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from core.configkeys import overlay, uplink
from core.configkeys.network import ALLOWS_RAW, RAW
from core.configkeys.overlay import OVERLAY, schema_of
from core.configkeys.schema import without_empty
from core.configkeys.tunnels import check_names
from core.configkeys.uplink import UPLINKS
from core.errors import Invalid, NotFound, Unsupported
from core.netrecords import NetworkForward
from core.records import BRIDGES, Network
from core.state import keys
from core.units import parse_bool
from services.network.domain import addresses, balancers, listeners
from services.network.domain.acls import named_in
from services.network.domain.bridge import check_together
from services.network.domain.overlay import free_vni, mtu_over
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.belongings import listening_on
from services.network.usecases.rulebooks import HOME

_FAMILIES = ("ipv4", "ipv6")


class Configs:
    def __init__(self, store: NetworkStore, host: Host) -> None:
        self._store = store
        self._host = host
        self._random = random.Random()  # noqa: S311 - addresses are no secret

    def refuse_parent(self, network: Network, links: set[str]) -> None:
        parent = network.config["parent"]
        if parent not in links:
            raise NotFound("NO_PARENT", f'Parent interface "{parent}" not found', about=parent)
        for entry in self._store.networks.entries():
            is_shared = network.type != "physical" and entry.record.type != "physical"
            if entry.record.config.get("parent") == parent and not is_shared:
                raise Invalid(
                    "PARENT_IN_USE", f'Parent interface "{parent}" in use by another network', about=parent
                )

    async def filled(self, wanted: Network, old: dict[str, str] | None) -> dict[str, str]:
        """Return the config of *wanted* checked, with automatic addresses chosen; *old*: None for a new one.

        Raises: Invalid.
        """
        filled, old, is_new = without_empty(wanted.config), old or {}, old is None
        check_known(wanted)
        if wanted.type in UPLINKS:
            uplink.check(wanted.name, wanted.type, filled)
            return filled
        schema_of(wanted.type).check(filled, of=wanted.name)
        if wanted.type == "overlay":
            self._fill_overlay(filled, old)
            await self._refuse_encryption(filled)
        check_together(filled)
        check_names(wanted.name, filled)
        self._refuse_raw(filled, old)
        self._refuse_unknown_acls(filled)
        self._refuse_unknown_zones(wanted.name, filled)
        self._check_listeners(replace(wanted, config=filled))
        taken = await self._taken_subnets(wanted.name)
        for family in _FAMILIES:
            key = f"{family}.address"
            if filled.get(key, "auto" if is_new else "none") != "auto":
                continue
            if family == "ipv4":
                filled[key] = addresses.free_ipv4_subnet(taken[0], self._random)
            else:
                filled[key] = addresses.free_ipv6_subnet(taken[1], self._random)
            if is_new:
                filled.setdefault(f"{family}.nat", "true")
        check_together(filled)  # what was chosen may not hold the ranges
        _refuse_overlap(filled, addresses.without(taken, addresses.subnets_of(old)))
        return filled

    async def _taken_subnets(self, network: str) -> tuple[list[IPv4Network], list[IPv6Network]]:
        """Return what this host uses, and what is recorded: another member may be the first with it."""
        v4, v6 = await self._host.taken_subnets()
        for entry in self._store.networks.entries():
            if entry.record.has_bridge and entry.record.name != network:
                subnets = addresses.subnets_of(entry.record.config)
                v4 += [subnets.ipv4.network] if subnets.ipv4 else []
                v6 += [subnets.ipv6.network] if subnets.ipv6 else []
        return v4, v6

    def _fill_overlay(self, filled: dict[str, str], old: dict[str, str]) -> None:
        """Choose number and MTU where they are left open, once and for all. Raises: Invalid, Unsupported."""
        most = mtu_over(entry.record for entry in self._store.ends.entries())
        if int(filled.setdefault("bridge.mtu", str(most))) > most:
            said = (
                f"bridge.mtu of an overlay is at most {most}, which is what fits into packets between members"
            )
            raise Invalid("BAD_MTU", said, about="bridge.mtu")
        kept = old.get("overlay.id")
        taken = (int(key.rpartition("/")[2]) for key, _ in self._store.vnis.items())
        filled.setdefault("overlay.id", kept or str(free_vni(taken, self._random)))
        if old and (key := overlay.changed_for_good(old, filled)):
            said = f"{key} cannot be changed while members use it; make another network"
            raise Invalid("FOR_GOOD", said, about=key)

    async def _refuse_encryption(self, config: dict[str, str]) -> None:
        if OVERLAY.get(config, "overlay.encryption") == "none":
            return
        why = "members exchange no keys in this version"
        if not await self._host.can_encrypt():
            why = "this kernel has no ESP with AES-GCM (CONFIG_INET_ESP, CONFIG_CRYPTO_GCM)"
        said = f"overlay.encryption=ipsec is not available: {why}; encrypt what connects the members"
        raise Unsupported("NO_ENCRYPTION", said, about="overlay.encryption")

    def _refuse_raw(self, config: dict[str, str], old: dict[str, str]) -> None:
        """What there is stays when it is no longer allowed: it may be what a network lives on."""
        entry = self._store.server.get(keys.server_config())
        is_allowed = parse_bool((entry.record.config if entry else {}).get(ALLOWS_RAW) or "false")
        if config.get(RAW, "") not in ("", old.get(RAW)) and not is_allowed:
            why = f"whoever sets it is root of this host; lxc config set {ALLOWS_RAW}=true allows it"
            raise Invalid("KEY_REFUSED", f"{RAW} is not supported unless it is allowed: {why}", about=RAW)

    def _refuse_unknown_acls(self, config: dict[str, str]) -> None:
        for name in named_in(config):
            if self._store.acls.get(keys.network_acl(HOME, name)) is None:
                raise Invalid("NO_ACL", f'Network ACL "{name[:64]}" does not exist', about=name)

    def _refuse_unknown_zones(self, network: str, config: dict[str, str]) -> None:
        for key in ("dns.zone.forward", "dns.zone.reverse.ipv4", "dns.zone.reverse.ipv6"):
            name = config.get(key)
            entry = self._store.zones.get(keys.network_zone(name)) if name else None
            if name and (entry is None or entry.record.project != HOME):
                why = f'Network zone "{name[:64]}" doesn\'t exist'
                raise Invalid(
                    "NO_ZONE", f'Invalid value for network "{network}" option "{key}": {why}', about=key
                )

    def _check_listeners(self, network: Network) -> None:
        """Raises: Invalid when what listens for it would lead out of its subnet."""
        for _, _, record in listening_on(self._store, network.name):
            try:
                if isinstance(record, NetworkForward):
                    listeners.checked(record, network)
                else:
                    balancers.checked(record, network)
            except Invalid as exc:
                where = f'for listen address "{record.listen_address}"'
                said = f"Failed validating firewall address forward {where}: {exc.message}"
                raise Invalid("HAS_LISTENERS", said, about=record.listen_address) from None


def check_known(network: Network) -> None:
    """Refuse what is no key, also where it is to be unset. Raises: Invalid."""
    if network.type in UPLINKS:
        uplink.check_known(network.name, network.type, network.config)
    else:
        schema_of(network.type).check_known(network.config, of=network.name)


def refuse_type(type: str) -> None:
    if type == "ovn":
        raise Unsupported("NO_DRIVER", "OVN networks are not available in this version")
    if type not in (*BRIDGES, *UPLINKS):
        raise Invalid("NO_DRIVER", "Unknown driver", about=type)


def _refuse_overlap(config: dict[str, str], taken: tuple[list[IPv4Network], list[IPv6Network]]) -> None:
    subnets = addresses.subnets_of(config)
    for own, others in ((subnets.ipv4, taken[0]), (subnets.ipv6, taken[1])):
        for other in others:
            if own and own.network.overlaps(other):
                raise Invalid(
                    "SUBNET_TAKEN",
                    f"{own.network} overlaps {other}, which this host uses already; choose another",
                    about=str(own.network),
                )
