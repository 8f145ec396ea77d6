"""What else on this host keeps networks from working: named, with what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from core.configkeys.network import NETWORK
from core.records import Network
from services.network.domain import render
from services.network.domain.addresses import subnets_of

FORWARD = "Another firewall drops what instances send"
SERVER = "Another DNS or DHCP server on the network"
SUBNET = "Subnet overlaps another network of this host"
KERNEL = "Kernel setting stops instances from working"
UNAVAILABLE = "Network unavailable"
PREFIX = "IPv6 networks with a prefix larger than 64 aren't properly supported by dnsmasq"
MTU = "MTU of a network is larger than that of the way out"
RP_FILTER = "Strict check of senders drops what comes by another way"
ZONES = "DNS zones are not served"
TYPES = (FORWARD, SERVER, SUBNET, KERNEL, UNAVAILABLE, PREFIX, MTU, RP_FILTER, ZONES)

Rules = list[dict[str, Any]]
Subnet = IPv4Network | IPv6Network
_ANY = ("0.0.0.0", "*", "::", "")  # noqa: S104 - compared with, not bound to
# Enough for a few hundred systemd containers; the kernel's default of 128 ends at about 20.
_LEAST = {"fs.inotify.max_user_instances": 4096, "fs.inotify.max_user_watches": 65536}
_RAISED = 1048576


@dataclass(frozen=True)
class Conflict:
    """type and subject name it; message says what is wrong and what to do."""

    type: str
    severity: str
    subject: str
    message: str


@dataclass(frozen=True)
class Listener:
    """A socket on a port of DNS or DHCP. interface: the only one it hears, or empty; process in words."""

    address: str
    interface: str
    port: int
    process: str


@dataclass(frozen=True)
class Seen:
    """What the host shows.

    tables: by (family, name), the rules of tables with a chain at the forward hook that is not ours.
    uplinks: MTUs of the interfaces that default routes lead to.
    subnets: of other interfaces, by interface name. settings: kernel settings by dotted name.
    """

    tables: Mapping[tuple[str, str], Rules]
    listeners: tuple[Listener, ...]
    subnets: tuple[tuple[str, Subnet], ...]
    settings: Mapping[str, str]
    serving: frozenset[str]
    uplinks: tuple[tuple[str, int], ...] = ()


def find(networks: Sequence[Network], seen: Seen) -> list[Conflict]:
    """Return every conflict of *networks* with the rest of the host."""
    found: list[Conflict] = []
    for network in networks:
        found += _unavailable(network)
        found += _blocked(network, seen)
        found += _other_servers(network, seen)
        found += _overlaps(network, seen)
        found += _settings_of(network, seen)
        found += _prefix(network)
        found += _mtu(network, seen)
    return [*found, *_strict(networks, seen), *_limits(seen.settings)]


def not_served(address: str, why: str) -> Conflict:
    """Return what is said when nobody can listen where core.dns_address says."""
    said = f"Nothing can listen at core.dns_address={address}: {why}; set another address, or free this one"
    return Conflict(ZONES, "moderate", "", said)


def _subject(network: Network) -> str:
    return f"networks/{network.name}"


def _unavailable(network: Network) -> Iterator[Conflict]:
    if network.error:
        yield Conflict(UNAVAILABLE, "high", _subject(network), network.error)


# --- forwarding --------------------------------------------------------------------------------------


def _blocked(network: Network, seen: Seen) -> Iterator[Conflict]:
    subnets = subnets_of(network.config)
    families = {"ip"} if subnets.ipv4 else set()
    families |= {"ip6"} if subnets.ipv6 else set()
    found = [
        (family, table, chain)
        for (family, table), rules in sorted(seen.tables.items())
        if family in families or (family == "inet" and families)
        for chain in _dropping(rules)
        if not _lets_through(rules, chain, network.name)
    ]
    if found:
        yield Conflict(FORWARD, "high", _subject(network), _how_to_accept(network.name, found, seen))


def _dropping(rules: Rules) -> list[str]:
    chains = [item["chain"] for item in rules if "chain" in item]
    return [c["name"] for c in chains if c.get("hook") == "forward" and c.get("policy") == "drop"]


def _lets_through(rules: Rules, chain: str, bridge: str) -> bool:
    """Return whether *chain*, or one that it jumps to, accepts both directions of the bridge."""
    found = [rule["rule"] for rule in rules if "rule" in rule]
    reached, queue = set[str](), [chain]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += [to for rule in found if rule["chain"] == name for to in _jumps(rule)]
    ways = [way for rule in found if rule["chain"] in reached for way in _accepts(rule, bridge)]
    return {"iifname", "oifname"} <= set(ways)


def _jumps(rule: dict[str, Any]) -> list[str]:
    expr = rule.get("expr", [])
    return [e[how]["target"] for e in expr for how in ("jump", "goto") if how in e]


def _accepts(rule: dict[str, Any], bridge: str) -> list[str]:
    """Return the directions in which a rule accepts all traffic of *bridge*."""
    expr = rule.get("expr", [])
    if not any("accept" in e for e in expr):
        return []
    if any(set(e) - {"accept", "counter", "match", "comment"} for e in expr):
        return []
    matches = [e["match"] for e in expr if "match" in e]
    if not matches:
        return ["iifname", "oifname"]
    names = {m["left"].get("meta", {}).get("key"): m["right"] for m in matches if m.get("op") == "=="}
    if len(matches) == 1:
        return [way for way in ("iifname", "oifname") if names.get(way) == bridge]
    return []


def _how_to_accept(bridge: str, found: list[tuple[str, str, str]], seen: Seen) -> str:
    places, commands = [], []
    for family, table, chain in found:
        rules = seen.tables[family, table]
        is_docker = any("chain" in i and i["chain"]["name"].startswith("DOCKER") for i in rules)
        who = "Docker" if is_docker else "A firewall"
        places.append(f"{who} drops what is forwarded by default (chain {chain} of table {family} {table})")
        if table == "filter" and chain == "FORWARD" and family in ("ip", "ip6"):
            program = "iptables" if family == "ip" else "ip6tables"
            has_user = any(i.get("chain", {}).get("name") == "DOCKER-USER" for i in rules)
            target = "DOCKER-USER" if has_user else chain
            commands += [f"{program} -I {target} -{side} {bridge} -j ACCEPT" for side in "io"]
        else:
            rule = f"nft insert rule {family} {table} {chain}"
            commands += [f"{rule} {side} {bridge} accept" for side in ("iifname", "oifname")]
    return (
        f"{'; '.join(places)}, so instances on {bridge} reach nothing beyond this host. "
        f"Run: {' && '.join(commands)}"
    )


# --- other servers -----------------------------------------------------------------------------------


def _other_servers(network: Network, seen: Seen) -> Iterator[Conflict]:
    subnets = subnets_of(network.config)
    own = {str(i.ip) for i in (subnets.ipv4, subnets.ipv6) if i}
    is_serving = network.name in seen.serving
    found = {s.process: s for s in seen.listeners if _disturbs(s, network.name, own, is_serving)}
    for s in list(found.values())[:1]:
        what = "DNS" if s.port == 53 else "DHCP"
        yield Conflict(
            SERVER,
            "moderate",
            _subject(network),
            f"{s.process} listens on port {s.port} at {s.address or 'all addresses'}, where {network.name} "
            f"serves {what}; stop it, or bind it to other interfaces",
        )


def _disturbs(s: Listener, bridge: str, own: set[str], is_serving: bool) -> bool:
    """Ours hears its bridge only. Once it runs, another can disturb it at the broadcast port alone."""
    if s.interface and s.interface != bridge:
        return False
    is_everywhere = s.address in _ANY and not s.interface
    if s.port == 67 and is_everywhere:
        return bool(own)
    return not is_serving and (is_everywhere or s.address in own or s.interface == bridge)


# --- subnets and settings ----------------------------------------------------------------------------


def _overlaps(network: Network, seen: Seen) -> Iterator[Conflict]:
    subnets = subnets_of(network.config)
    own = [i.network for i in (subnets.ipv4, subnets.ipv6) if i]
    for name, other in seen.subnets:
        for net in own:
            if name != network.name and net.version == other.version and net.overlaps(other):
                yield Conflict(
                    SUBNET,
                    "moderate",
                    _subject(network),
                    f"{net} of {network.name} overlaps {other} of {name}; give one of them another subnet",
                )
                return


def _settings_of(network: Network, seen: Seen) -> Iterator[Conflict]:
    subnets = subnets_of(network.config)
    wanted = []
    if subnets.ipv4 and render.is_on(network, "ipv4.routing"):
        wanted.append(("net.ipv4.ip_forward", "1", "nothing is forwarded to or from instances"))
    if subnets.ipv6 and render.is_on(network, "ipv6.routing"):
        wanted.append(("net.ipv6.conf.all.forwarding", "1", "no IPv6 is forwarded to or from instances"))
    if subnets.ipv6:
        wanted.append(("net.ipv6.conf.all.disable_ipv6", "0", "the bridge cannot have its IPv6 address"))
    for name, value, why in wanted:
        if seen.settings.get(name, value) != value:
            is_now = seen.settings[name]
            message = f"{name} is {is_now}, so {why}. Run: sysctl -w {name}={value}"
            yield Conflict(KERNEL, "high", f"{_subject(network)}", message)
            return


def _prefix(network: Network) -> Iterator[Conflict]:
    ipv6 = subnets_of(network.config).ipv6
    if ipv6 and ipv6.network.prefixlen > 64:
        yield Conflict(PREFIX, "low", _subject(network), f"{ipv6.network} is smaller than a /64")


def _mtu(network: Network, seen: Seen) -> Iterator[Conflict]:
    """Only one that somebody chose: with the usual one, path MTU discovery does what is needed."""
    if not network.has_bridge or not network.config.get("bridge.mtu"):
        return
    mtu = int(NETWORK.get(network.config, "bridge.mtu"))
    for name, limit in seen.uplinks:
        if mtu > limit:
            said = f"bridge.mtu of {network.name} is {mtu}, but {name}, the way out, takes {limit}, so that "
            said += (
                f"large packets are cut up or lost. Run: podium network set {network.name} bridge.mtu={limit}"
            )
            yield Conflict(MTU, "low", _subject(network), said)
            return


def _strict(networks: Sequence[Network], seen: Seen) -> Iterator[Conflict]:
    """With one way out there is no other; the kernel takes the larger of an interface's value and all's.

    Source: Documentation/networking/ip-sysctl.rst, rp_filter.
    """
    ways = sorted({name for name, _ in seen.uplinks})
    if len(ways) < 2 or not any(subnets_of(network.config).ipv4 for network in networks):
        return
    of_all = seen.settings.get(rp_filter("all"), "0")
    found = [n for n in ways if max(of_all, seen.settings.get(rp_filter(n), "0")) == "1"]
    if found:
        shown = " and ".join(found)
        said = (
            f"rp_filter is 1 on {shown} and this host has {len(ways)} ways out, so what comes for instances "
        )
        said += "by another one than answers would take is dropped. Run: "
        commands = (f"sysctl -w {rp_filter(name)}=2" for name in found)
        yield Conflict(RP_FILTER, "low", "", said + " && ".join(commands))


def rp_filter(interface: str) -> str:
    """Return the name of the setting. Names of interfaces may hold dots, which sysctl takes as slashes."""
    return f"net.ipv4.conf.{interface.replace('.', '/')}.rp_filter"


def _limits(settings: Mapping[str, str]) -> list[Conflict]:
    low = [n for n, least in _LEAST.items() if settings.get(n, "").isdigit() and int(settings[n]) < least]
    if not low:
        return []
    shown = " and ".join(f"{name} is {settings[name]}" for name in low)
    commands = " && ".join(f"sysctl -w {name}={_RAISED}" for name in low)
    message = f"{shown}, which caps how many instances can run. Run: {commands}"
    return [Conflict(KERNEL, "moderate", "", message)]
