"""What a network looks like to nftables. Pure; every value is checked before it gets here."""

from __future__ import annotations

from collections.abc import Iterable

from core.configkeys.network import NETWORK
from core.records import Network, NicReservation
from core.units import parse_bool
from services.network.domain import filters
from services.network.domain.addresses import subnets_of

_PREFIX = "podium_"
_FAMILIES = (("ipv4", "ip"), ("ipv6", "ip6"))
# The bridge family holds the filters of NICs, inet all the rest.
TABLE_FAMILIES = ("inet", "bridge")


def table_name(network: str) -> str:
    """Return the nft table of a network; nft identifiers take letters, digits and _ only."""
    return _PREFIX + "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in network)


def is_on(network: Network, key: str) -> bool:
    return parse_bool(NETWORK.get(network.config, key))


def nft_remove(network: str) -> str:
    """Return a script that removes a network's tables, whether there are any or not."""
    tables = [f"{family} {table_name(network)}" for family in TABLE_FAMILIES]
    return "".join(f"add table {table}\ndelete table {table}\n" for table in tables)


def nft_rules(network: Network, nics: Iterable[NicReservation] = ()) -> str:
    """Return a script that replaces the network's tables in one transaction."""
    bridge, subnets = network.name, subnets_of(network.config)
    families = [(v, ip) for v, ip in _FAMILIES if getattr(subnets, v)]
    accept = [ip for v, ip in families if is_on(network, f"{v}.firewall")]
    closed = [ip for v, ip in families if not is_on(network, f"{v}.routing")]
    nat = [_nat(network, v, ip) for v, ip in families if is_on(network, f"{v}.nat")]
    lines = [f"table inet {table_name(bridge)} {{"]
    lines += _chain("in", "filter hook input priority filter; policy accept;", _input(bridge, accept))
    forward = _forward(bridge, closed, "drop") + _forward(bridge, accept, "accept")
    lines += _chain("out", "filter hook forward priority filter; policy accept;", forward)
    lines += _chain("pst", "nat hook postrouting priority srcnat; policy accept;", nat)
    lines += ["}"]
    if rules := [rule for nic in nics for rule in filters.rules_of(nic)]:
        lines += [f"table bridge {table_name(bridge)} {{"]
        lines += _chain("pre", "filter hook prerouting priority filter; policy accept;", rules)
        lines += ["}"]
    return nft_remove(bridge) + "\n".join(lines) + "\n"


def nic_table(nic: NicReservation) -> str:
    """Return the name, for table_name, of what filters a NIC on a bridge that is not ours."""
    return f"nic_{nic.host_name}"


def nic_rules(nic: NicReservation) -> str:
    """Return a script that replaces the filters of such a NIC."""
    name = nic_table(nic)
    lines = [f"table bridge {table_name(name)} {{"]
    lines += _chain("pre", "filter hook prerouting priority filter; policy accept;", filters.rules_of(nic))
    return nft_remove(name) + "\n".join([*lines, "}"]) + "\n"


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    return [f" chain {name} {{", f"  type {hook}", *(f"  {rule}" for rule in rules), " }"]


def _nat(network: Network, version: str, ip: str) -> str:
    net = getattr(subnets_of(network.config), version).network
    source = NETWORK.get(network.config, f"{version}.nat.address")
    how = f"snat {ip} to {source}" if source else "masquerade"
    return f"{ip} saddr {net} {ip} daddr != {net} {how}"


def _input(bridge: str, families: list[str]) -> list[str]:
    rules = []
    if families:
        rules += [f'iifname "{bridge}" tcp dport 53 accept', f'iifname "{bridge}" udp dport 53 accept']
    if "ip" in families:
        rules += [f'iifname "{bridge}" udp dport 67 accept']
    if "ip6" in families:
        rules += [f'iifname "{bridge}" udp dport 547 accept']
    return rules


def _forward(bridge: str, families: list[str], verdict: str) -> list[str]:
    names = {ip: version for version, ip in _FAMILIES}
    both = [f"meta nfproto {names[ip]}" for ip in families]
    return [f'{m} {side} "{bridge}" {verdict}' for m in both for side in ("iifname", "oifname")]
