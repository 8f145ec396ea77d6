"""What a network looks like to nftables and dnsmasq. Pure; every value is checked before it gets here."""

from __future__ import annotations

from pathlib import Path

from core.configkeys.others import NETWORK
from core.records import Network, NicReservation
from core.units import parse_bool
from services.network.domain.addresses import subnets_of

_PREFIX = "podium_"


def table_name(network: str) -> str:
    """Return the nft table of a network; nft identifiers take letters, digits and _ only."""
    return _PREFIX + "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in network)


def is_on(network: Network, key: str) -> bool:
    return parse_bool(NETWORK.get(network.config, key))


def nft_remove(network: str) -> str:
    table = f"inet {table_name(network)}"
    return f"add table {table}\ndelete table {table}\n"


def nft_rules(network: Network) -> str:
    """Return a script that replaces the network's whole table in one transaction."""
    bridge, subnets = network.name, subnets_of(network.config)
    accept, nat = [], []
    if subnets.ipv4:
        if is_on(network, "ipv4.firewall"):
            accept.append("ip")
        if is_on(network, "ipv4.nat"):
            net = subnets.ipv4.network
            nat.append(f"ip saddr {net} ip daddr != {net} masquerade")
    if subnets.ipv6:
        if is_on(network, "ipv6.firewall"):
            accept.append("ip6")
        if is_on(network, "ipv6.nat"):
            net6 = subnets.ipv6.network
            nat.append(f"ip6 saddr {net6} ip6 daddr != {net6} masquerade")
    lines = [f"table inet {table_name(bridge)} {{"]
    lines += _chain("in", "filter hook input priority filter; policy accept;", _input(bridge, accept))
    lines += _chain("out", "filter hook forward priority filter; policy accept;", _forward(bridge, accept))
    lines += _chain("pst", "nat hook postrouting priority srcnat; policy accept;", nat)
    return nft_remove(bridge) + "\n".join([*lines, "}"]) + "\n"


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    return [f" chain {name} {{", f"  type {hook}", *(f"  {rule}" for rule in rules), " }"]


def _input(bridge: str, families: list[str]) -> list[str]:
    rules = []
    if families:
        rules += [f'iifname "{bridge}" tcp dport 53 accept', f'iifname "{bridge}" udp dport 53 accept']
    if "ip" in families:
        rules += [f'iifname "{bridge}" udp dport 67 accept']
    if "ip6" in families:
        rules += [f'iifname "{bridge}" udp dport 547 accept']
    return rules


def _forward(bridge: str, families: list[str]) -> list[str]:
    names = {"ip": "ipv4", "ip6": "ipv6"}
    both = [f"meta nfproto {names[f]}" for f in families]
    return [f'{m} {side} "{bridge}" accept' for m in both for side in ("iifname", "oifname")]


def dnsmasq_argv(network: Network, folder: Path, *, as_root: bool) -> list[str]:
    """Return the command of the network's DHCP and DNS server; it puts itself into the background."""
    subnets, domain = subnets_of(network.config), NETWORK.get(network.config, "dns.domain")
    argv = ["dnsmasq", "--conf-file=", "--no-hosts", "--no-ping", "--bind-interfaces", "--quiet-dhcp"]
    argv += ["--except-interface=lo", f"--interface={network.name}", "--dhcp-authoritative"]
    argv += ["--dhcp-no-override", "--dhcp-rapid-commit", f"--domain={domain}", f"--local=/{domain}/"]
    argv += [f"--pid-file={folder}/dnsmasq.pid", f"--dhcp-leasefile={folder}/leases"]
    argv += [f"--dhcp-hostsdir={folder}/dhcp", f"--hostsdir={folder}/hosts"]
    argv += ["--user=root", "--group=root"] if as_root else []
    if subnets.ipv4:
        v4 = subnets.ipv4
        argv.append(f"--listen-address={v4.ip}")
        if is_on(network, "ipv4.dhcp"):
            argv.append(f"--dhcp-range={v4.network[0]},static,{v4.netmask},1h")
    if subnets.ipv6:
        argv.append(f"--listen-address={subnets.ipv6.ip}")
        if is_on(network, "ipv6.dhcp"):
            argv += ["--enable-ra", f"--dhcp-range=::,constructor:{network.name},ra-stateless,ra-names"]
    return argv


def dhcp_entry(nic: NicReservation) -> str:
    """Return one line for --dhcp-hostsdir."""
    parts = [nic.hwaddr, nic.ipv4, nic.instance_name]
    return ",".join(part for part in parts if part) + "\n"


def hosts_entry(nic: NicReservation, domain: str) -> str:
    """Return the lines for --hostsdir."""
    names = f"{nic.instance_name} {nic.instance_name}.{domain}"
    return "".join(f"{ip} {names}\n" for ip in (nic.ipv4, nic.ipv6) if ip)
