"""Addresses that listen for instances: what they may say, in LXD's words, and their rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from core.configkeys.schema import lines, without_empty
from core.errors import Invalid
from core.netrecords import ForwardPort, NetworkForward
from core.records import Network, NicReservation
from services.network.domain import spans
from services.network.domain.acls import items
from services.network.domain.addresses import subnets_of

Address = IPv4Address | IPv6Address
_PROTOCOLS = ("tcp", "udp")
_MOST_PORTS, _MOST_PAIRS = 256, 4096


def listen_address(text: str) -> Address:
    """Raises: Invalid."""
    try:
        if "%" in text:
            raise ValueError("zone")
        return ip_address(text)
    except ValueError:
        bits = 128 if ":" in text else 32
        why = f"invalid CIDR address: {text[:64]}/{bits}"
        said = f'Failed parsing address forward listen address "{text[:64]}": {why}'
        raise Invalid("BAD_ADDRESS", said, about=text[:64]) from None


def subnet_for(network: Network, listen: Address) -> IPv4Network | IPv6Network:
    """Return the subnet that targets must lie in. Raises: Invalid when the network has none of the family."""
    bridge = getattr(subnets_of(network.config), f"ipv{listen.version}")
    if bridge is None:
        said = f"Network has no IPv{listen.version} addresses, since ipv{listen.version}.address is none"
        raise Invalid("NO_SUBNET", said, about=network.name)
    return bridge.network  # type: ignore[no-any-return]


def checked(forward: NetworkForward, network: Network) -> NetworkForward:
    """Return *forward* with its addresses in one form. Raises: Invalid."""
    listen = listen_address(forward.listen_address)
    subnet = subnet_for(network, listen)
    config = checked_config(forward.config, forward.description, known=("target_address",))
    if text := config.get("target_address"):
        config["target_address"] = str(_default_target(text, listen, subnet))
    try:
        ports = _checked_ports(forward.ports, listen, subnet, config.get("target_address", ""))
    except ValueError as exc:
        raise Invalid("BAD_PORT", str(exc), about=str(listen)) from None
    return replace(forward, listen_address=str(listen), config=config, ports=ports)


def checked_config(config: Mapping[str, str], description: str, known: Iterable[str]) -> dict[str, str]:
    """Raises: Invalid."""
    for key, value in {**config, "description": description}.items():
        if key not in (*known, "description") and not (key.startswith("user.") and len(key) < 256):
            raise Invalid("UNKNOWN_KEY", f'Invalid option "{key[:64]}"', about=key[:64])
        try:
            lines(value)
        except ValueError as exc:
            raise Invalid("BAD_VALUE", f"Invalid value for {key}: {exc}", about=key) from None
    return without_empty(config)


def _default_target(text: str, listen: Address, subnet: IPv4Network | IPv6Network) -> Address:
    target = _address(text)
    if target is None:
        raise Invalid("BAD_TARGET", "Invalid default target address", about=text[:64])
    if target.version != listen.version:
        said = "Cannot mix IP versions in listen address and default target address"
        raise Invalid("BAD_TARGET", said, about=text[:64])
    if target not in subnet:
        said = "Default target address is not within the network subnet"
        raise Invalid("BAD_TARGET", said, about=text[:64])
    return target


def _address(text: str) -> Address | None:
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


def _checked_ports(
    ports: Iterable[ForwardPort], listen: Address, subnet: IPv4Network | IPv6Network, default: str
) -> tuple[ForwardPort, ...]:
    """Raises: ValueError."""
    found, taken = list(ports), set[tuple[str, int]]()
    if len(found) > _MOST_PORTS:
        raise ValueError(f"At most {_MOST_PORTS} port specifications are possible")
    checked_ports = []
    for number, port in enumerate(found):
        where = f"in port specification {number}"
        check_protocol(port.protocol, where)
        target = _address(port.target_address)
        if target is None:
            raise ValueError(f"Invalid target address {where}")
        if str(target) == default:
            raise ValueError(f"Target address is same as default target address {where}")
        if target.version != listen.version:
            raise ValueError(
                f"Cannot mix IP versions in listen address and port specification {number} target address"
            )
        if target not in subnet:
            raise ValueError(f"Target address is not within the network subnet {where}")
        listening = listen_ports(port.protocol, port.listen_port, where, taken)
        _check_target_ports(port.target_port, len(listening), where)
        lines(port.description)
        checked_ports.append(replace(port, target_address=str(target)))
    return tuple(checked_ports)


def check_protocol(protocol: str, where: str) -> None:
    if protocol not in _PROTOCOLS:
        raise ValueError(f"Invalid port protocol {where}, protocol must be one of: {', '.join(_PROTOCOLS)}")


def listen_ports(protocol: str, text: str, where: str, taken: set[tuple[str, int]]) -> list[int]:
    """Return the ports in order, and add them to *taken*. Raises: ValueError when one is taken."""
    if not items(text):
        raise ValueError(f"Missing listen port {where}")
    try:
        found = ports_of(text)
    except ValueError as exc:
        raise ValueError(f"Invalid listen port {where}: {exc}") from None
    for port in found:
        if (protocol, port) in taken:
            raise ValueError(f'Duplicate listen port {port} for protocol "{protocol}" {where}')
        taken.add((protocol, port))
    return found


def _check_target_ports(text: str, listening: int, where: str) -> None:
    try:
        count = len(ports_of(text)) if text.strip() else 0
    except ValueError:
        raise ValueError(f"Invalid target port {where}") from None
    if count > 1 and count != listening:
        raise ValueError(f"Mismatch of listen port(s) and target port(s) count {where}")
    if count > _MOST_PAIRS:
        raise ValueError(f"At most {_MOST_PAIRS} ports can lead to ports with other numbers {where}")


def ports_of(text: str) -> list[int]:
    """Return the ports of "80,90-95" in order. Raises: ValueError, in LXD's words where it has some."""
    found = list[int]()
    for item in items(text):
        first, dash, last = item.partition("-")
        start, end = _port(first), _port(last if dash else first)
        if dash and end <= start:
            raise ValueError("End port should be higher than start port")
        found += range(start, end + 1)
    return found


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f'strconv.ParseInt: parsing "{text[:32]}": invalid syntax')
    if not 0 < int(text) < 1 << 16:
        raise ValueError(f"Port {text} is not between 1 and 65535")
    return int(text)


# --- conflicts -------------------------------------------------------------------------------------


def is_taken(listen: str, own: Network, networks: Iterable[Network], nics: Iterable[NicReservation]) -> bool:
    """Return whether another network or any NIC has *listen*, or the way to it."""
    address = ip_address(listen)
    for network in networks:
        bridge = getattr(subnets_of(network.config), f"ipv{address.version}", None)
        if network.name != own.name and network.has_bridge and bridge and address in bridge.network:
            return True
    return any(listen in (nic.ipv4, nic.ipv6) or _routes_to(nic, address) for nic in nics)


def _routes_to(nic: NicReservation, address: Address) -> bool:
    keys = [f"ipv{address.version}.routes{kind}" for kind in ("", ".external")]
    return any(address in ip_network(net) for key in keys for net in items(nic.options.get(key, "")))


def taken(listen: str) -> Invalid:
    bits = 128 if ":" in listen else 32
    said = f'Forward listen address "{listen}/{bits}" overlaps with another network or NIC'
    return Invalid("ADDRESS_TAKEN", said, about=listen)


# --- rules -----------------------------------------------------------------------------------------


def family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def rules(forward: NetworkForward) -> Iterator[str]:
    """Yield what translates a packet for the listen address: its ports first, then the default."""
    ip, listen = family(forward.listen_address), forward.listen_address
    for port in forward.ports:
        listening = ports_of(port.listen_port)
        ports = spans.port_set((p, p) for p in listening)
        to = _target(port, listening)
        yield f"{ip} daddr {listen} {port.protocol} dport {ports} dnat {ip} to {to}"
    if target := forward.config.get("target_address"):
        yield f"{ip} daddr {listen} dnat {ip} to {target}"


def _target(port: ForwardPort, listening: list[int]) -> str:
    """Without a colon the port stays what it is."""
    wanted = ports_of(port.target_port) if port.target_port.strip() else listening
    if wanted == listening:
        return port.target_address
    address = f"[{port.target_address}]" if ":" in port.target_address else port.target_address
    if len(wanted) == 1:
        return f"{address}:{wanted[0]}"
    pairs = ", ".join(f"{a} : {b}" for a, b in zip(listening, wanted, strict=True))
    return f"{port.target_address} : {port.protocol} dport map {{ {pairs} }}"


def hairpin(network: Network, listeners: Iterable[str]) -> list[str]:
    """Let guests of the bridge use a listen address too: the answer must come back the same way."""
    found = []
    for ip in sorted({family(address) for address in listeners}):
        bridge = getattr(subnets_of(network.config), "ipv6" if ip == "ip6" else "ipv4")
        if bridge:
            net = bridge.network
            found.append(f"{ip} saddr {net} {ip} daddr {net} ct status dnat masquerade")
    return found
