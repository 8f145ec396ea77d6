"""What a network looks like to dnsmasq. Pure; every value is checked before it gets here."""

from __future__ import annotations

from pathlib import Path

from core.configkeys import network as keys
from core.configkeys.network import NETWORK
from core.records import Network, NicReservation
from services.network.domain.addresses import Subnets, subnets_of
from services.network.domain.bridge import mtu_of
from services.network.domain.render import is_on

# What guests take to be the MTU unless they are told.
_ETHERNET = 1500
# With dns.mode=dynamic guests choose their names; these would reroute the others. Source: CERT VU#598349.
_UNFIT = [f"--dhcp-name-match=set:unfit,{name}" for name in ("wpad", "localhost", "isatap")]
_UNFIT += ["--dhcp-ignore-names=tag:unfit"]

RAW_FILE = "dnsmasq.raw"


def argv(network: Network, folder: Path, *, as_root: bool) -> list[str]:
    """Return the command of the network's DHCP and DNS server; it puts itself into the background.

    Empty when the bridge has no address to serve at.
    """
    subnets, domain = subnets_of(network.config), NETWORK.get(network.config, "dns.domain")
    if not (subnets.ipv4 or subnets.ipv6):
        return []
    raw = f"{folder}/{RAW_FILE}" if network.config.get(keys.RAW) else ""
    found = ["dnsmasq", f"--conf-file={raw}", "--no-hosts", "--no-ping", "--bind-interfaces", "--quiet-dhcp"]
    found += ["--except-interface=lo", f"--interface={network.name}", "--dhcp-authoritative"]
    found += ["--dhcp-no-override", "--dhcp-rapid-commit", f"--domain={domain}", f"--local=/{domain}/"]
    found += [f"--pid-file={folder}/dnsmasq.pid", f"--dhcp-leasefile={folder}/leases"]
    found += [f"--dhcp-hostsdir={folder}/dhcp", f"--hostsdir={folder}/hosts"]
    found += ["--user=root", "--group=root"] if as_root else []
    if NETWORK.get(network.config, "dns.mode") == "dynamic":
        found += _UNFIT
    found += ["--port=0"] if NETWORK.get(network.config, "dns.mode") == "none" else []
    return found + _search(network) + _ipv4(network, subnets) + _ipv6(network, subnets)


def _search(network: Network) -> list[str]:
    if not (text := NETWORK.get(network.config, "dns.search")):
        return []
    domains = ",".join(keys.parse_domains(text))
    return [f"--dhcp-option-force=119,{domains}", f"--dhcp-option-force=option6:24,{domains}"]


def _ipv4(network: Network, subnets: Subnets) -> list[str]:
    if not subnets.ipv4:
        return []
    found = [f"--listen-address={subnets.ipv4.ip}"]
    if not is_on(network, "ipv4.dhcp"):
        return found
    net, expiry = subnets.ipv4.network, NETWORK.get(network.config, "ipv4.dhcp.expiry")
    # Only who has an entry gets an address; which one was decided before, within ipv4.dhcp.ranges.
    found.append(f"--dhcp-range={net[0]},static,{net.netmask},{expiry}")
    if gateway := NETWORK.get(network.config, "ipv4.dhcp.gateway"):
        found.append(f"--dhcp-option-force=3,{gateway}")
    if (mtu := mtu_of(network)) != _ETHERNET:
        found.append(f"--dhcp-option-force=26,{mtu}")
    return found


def _ipv6(network: Network, subnets: Subnets) -> list[str]:
    if not subnets.ipv6:
        return []
    found = [f"--listen-address={subnets.ipv6.ip}", "--enable-ra"]
    net, expiry = subnets.ipv6.network, NETWORK.get(network.config, "ipv6.dhcp.expiry")
    if not is_on(network, "ipv6.dhcp"):
        return [*found, f"--dhcp-range=::,constructor:{network.name},ra-only"]
    if is_on(network, "ipv6.dhcp.stateful"):
        return [*found, f"--dhcp-range={net[0]},static,{net.prefixlen},{expiry}"]
    return [*found, f"--dhcp-range=::,constructor:{network.name},ra-stateless,ra-names"]


def dhcp_entry(network: Network, nic: NicReservation) -> str:
    """Return one line for --dhcp-hostsdir. With dns.mode=dynamic the guest says its name itself."""
    is_stateful = is_on(network, "ipv6.dhcp") and is_on(network, "ipv6.dhcp.stateful")
    ipv6 = f"[{nic.ipv6}]" if nic.ipv6 and is_stateful else ""
    name = "" if NETWORK.get(network.config, "dns.mode") == "dynamic" else nic.instance_name
    return ",".join(part for part in (nic.hwaddr, nic.ipv4, ipv6, name) if part) + "\n"


def hosts_entry(network: Network, nic: NicReservation) -> str:
    """Return the lines for --hostsdir; none unless we name the guests."""
    if NETWORK.get(network.config, "dns.mode") != "managed":
        return ""
    names = f"{nic.instance_name} {nic.instance_name}.{NETWORK.get(network.config, 'dns.domain')}"
    return "".join(f"{ip} {names}\n" for ip in (nic.ipv4, nic.ipv6) if ip)
