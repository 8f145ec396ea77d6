"""What a network looks like to nftables. Pure; every value is checked before it gets here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.configkeys.network import NETWORK
from core.records import Network, NicReservation
from core.units import parse_bool
from services.network.domain import aclrules, balancers, fences, filters, listeners
from services.network.domain.addresses import subnets_of
from services.network.domain.rulebook import EMPTY, Rulebook

PREFIX = "podium_"
_FAMILIES = (("ipv4", "ip"), ("ipv6", "ip6"))
# The bridge family holds the filters of NICs, inet all the rest.
TABLE_FAMILIES = ("inet", "bridge")
_FILTER = "type filter hook {} priority filter; policy accept;"
_PRE = _FILTER.format("prerouting")
# Those that only some networks have.
_OPTIONAL = ("loc", *aclrules.CHAINS, "pre", "own")


def table_name(network: str) -> str:
    """Return the nft table of a network; nft identifiers take letters, digits and _ only."""
    return PREFIX + "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in network)


def is_on(network: Network, key: str) -> bool:
    return parse_bool(NETWORK.get(network.config, key))


def nft_remove(network: str) -> str:
    """Return a script that removes a network's tables, whether there are any or not."""
    return "".join(_removed(family, table_name(network)) for family in TABLE_FAMILIES)


def nft_rules(network: Network, nics: Iterable[NicReservation] = (), book: Rulebook = EMPTY) -> str:
    """Return a script that replaces the network's rules in one transaction.

    Chains stay where they are: with a chain made anew there is a moment between two hooks in which a packet
    is past the new one, still without rules, and before the old one, without rules by now.
    """
    name, nics = table_name(network.name), list(nics)
    parts = [_replaced("inet", name, _chains(network, nics, book), _OPTIONAL)]
    rules = [rule for nic in nics for rule in filters.rules_of(nic)]
    if book.mesh:
        rules += [rule for nic in book.far for rule in filters.far_rules(nic, book.mesh.device)]
    if rules:
        parts.append(_replaced("bridge", name, [Chain("pre", _PRE, rules)], ()))
    else:
        parts.append(_removed("bridge", name))
    return "".join(parts)


@dataclass(frozen=True)
class Chain:
    """hook is empty for what others jump to."""

    name: str
    hook: str
    rules: list[str]


def _chains(network: Network, nics: list[NicReservation], book: Rulebook) -> list[Chain]:
    bridge, subnets = network.name, subnets_of(network.config)
    families = [(v, ip) for v, ip in _FAMILIES if getattr(subnets, v)]
    accept = [ip for v, ip in families if is_on(network, f"{v}.firewall")]
    closed = [ip for v, ip in families if not is_on(network, f"{v}.routing")]
    nat = [_nat(network, v, ip) for v, ip in families if is_on(network, f"{v}.nat")]
    to = [rule for forward in book.forwards for rule in listeners.rules(forward)]
    to += [rule for balancer in book.balancers for rule in balancers.rules(balancer)]
    listening = [forward.listen_address for forward in book.forwards]
    nat += listeners.hairpin(network, [*listening, *(b.listen_address for b in book.balancers)])
    found, bounds, forwarded = list[Chain](), _no_bounds, list[str]()
    if aclrules.has_acls(network, nics):
        inner = aclrules.chains(network, nics, book)
        found, bounds = [Chain(name, "", rules) for name, rules in inner.items()], aclrules.hook_rules
        found.append(Chain("loc", _FILTER.format("output"), bounds(bridge, "ingress")))
        forwarded = aclrules.forward_rules(network)
    forward = _forward(bridge, closed, "drop") + forwarded
    fence, own = fences.rules(book.mesh), fences.sources(network, book)
    if to:
        found.append(Chain("pre", "type nat hook prerouting priority dstnat; policy accept;", to))
        # What the host itself sends.
        found.append(Chain("own", "type nat hook output priority -100; policy accept;", to))
    return [
        *found,
        Chain("in", _FILTER.format("input"), fence.input + bounds(bridge, "egress") + _input(bridge, accept)),
        Chain("out", _FILTER.format("forward"), fence.forward + forward + _forward(bridge, accept, "accept")),
        Chain("pst", "type nat hook postrouting priority srcnat; policy accept;", own + nat),
    ]


def _no_bounds(bridge: str, *directions: str) -> list[str]:
    return []


def _replaced(family: str, name: str, chains: list[Chain], optional: tuple[str, ...]) -> str:
    """*optional*: chains that may be there from before, and are deleted unless they are among *chains*."""
    table = f"{family} {name}"
    lines = [f"add table {table}", f"flush table {table}"]
    for gone in (o for o in optional if o not in {chain.name for chain in chains}):
        lines += [f"add chain {table} {gone}", f"delete chain {table} {gone}"]
    lines.append(f"table {table} {{")
    for chain in chains:
        hook = [f"  {chain.hook}"] if chain.hook else []
        lines += [f" chain {chain.name} {{", *hook, *(f"  {rule}" for rule in chain.rules), " }"]
    return "\n".join([*lines, "}"]) + "\n"


def _removed(family: str, name: str) -> str:
    return f"add table {family} {name}\ndelete table {family} {name}\n"


def nic_table(nic: NicReservation) -> str:
    """Return the name, for table_name, of what filters a NIC on a bridge that is not ours."""
    return f"nic_{nic.host_name}"


def nic_rules(nic: NicReservation) -> str:
    """Return a script that replaces the filters of such a NIC."""
    name = table_name(nic_table(nic))
    return _replaced("bridge", name, [Chain("pre", _PRE, filters.rules_of(nic))], ())


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
