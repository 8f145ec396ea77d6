"""proxy: a socket on one side of an instance, connected to one on the other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from core.configkeys.devices.schema import OWNER, DeviceType, Options, boolean, user_id
from core.units import parse_bool

_PROTOCOLS = ("tcp", "udp", "unix")
# As sockets hold it (unix(7)): 107 bytes and a NUL.
_MAX_UNIX_PATH = 107
# Each listening port is a socket of one process.
_MOST_PORTS = 4096
INSTANCE_SIDE = ("instance", "guest", "container")


@dataclass(frozen=True)
class Address:
    """Where one side listens or connects. ports: empty for unix, whose path is *host*."""

    protocol: str
    host: str
    ports: tuple[int, ...] = ()

    @property
    def is_abstract(self) -> bool:
        return self.protocol == "unix" and self.host.startswith("@")

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        return ip_address(self.host)


def parse_address(value: str) -> Address:
    """Return the address of "tcp:127.0.0.1:80-90,95" or "unix:/run/x". Raises: ValueError."""
    protocol, _, rest = value.partition(":")
    if protocol not in _PROTOCOLS:
        raise ValueError(f'Unknown protocol type "{protocol[:64]}"')
    if not rest:
        raise ValueError("Missing address")
    if protocol == "unix":
        if len(rest.encode()) > _MAX_UNIX_PATH:
            raise ValueError(f"The path is longer than {_MAX_UNIX_PATH} bytes")
        return Address(protocol, rest)
    host, ports = _host_and_ports(rest)
    return Address(protocol, host, ports)


def _host_and_ports(text: str) -> tuple[str, tuple[int, ...]]:
    match = re.fullmatch(r"\[([^\]]*)\](?::(.*))?|([^:]*)(?::([^:]*))?", text)
    if not match:
        raise ValueError(f"address {text[:64]}: too many colons in address")
    host, ports = match[1] if match[1] is not None else match[3], match[2] or match[4]
    if ports is None:
        raise ValueError(f"address {text[:64]}: missing port in address")
    try:
        ip_address(host)
        if "%" in host:
            raise ValueError
    except ValueError:
        raise ValueError(f'Not an IP address "{host[:64]}"') from None
    return host, _ports(ports)


def _ports(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _port(first)
        end = _port(last) if dash else begin
        if end < begin or (dash and end == begin):
            raise ValueError("End port should be higher than start port")
        found += range(begin, end + 1)
        if len(found) > _MOST_PORTS:
            raise ValueError(f"At most {_MOST_PORTS} ports are possible")
    return tuple(found)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f'strconv.ParseInt: parsing "{text[:32]}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f"Invalid port {text}; use up to 65535")
    return int(text)


def _address(value: str) -> None:
    parse_address(value)


def _bind(value: str) -> None:
    if value not in ("host", *INSTANCE_SIDE):
        raise ValueError('Invalid binding side given. Must be "host" or "instance"')


def _rules(options: Options) -> None:
    both = {}
    for side in ("listen", "connect"):
        try:
            both[side] = parse_address(options.get(side, ""))
        except ValueError as exc:
            raise ValueError(f'Invalid value for device option "{side}": {exc}') from None
    listen, connect = both["listen"], both["connect"]
    for rule in (_counts, _header, _owner, _nat, _pairing):
        rule(options, listen, connect)


def _counts(options: Options, listen: Address, connect: Address) -> None:
    if len(connect.ports) > max(len(listen.ports), 1):
        raise ValueError("Mismatch between listen port(s) and connect port(s) count")
    if len(connect.ports) > 1 and len(connect.ports) != len(listen.ports):
        raise ValueError("Invalid port range")


def _header(options: Options, listen: Address, connect: Address) -> None:
    if _on(options, "proxy_protocol") and (connect.protocol != "tcp" or _on(options, "nat")):
        raise ValueError("The PROXY header can only be sent to tcp servers in non-nat mode")


def _owner(options: Options, listen: Address, connect: Address) -> None:
    has_owner = any(options.get(name) for name in OWNER)
    if has_owner and (listen.protocol != "unix" or listen.is_abstract):
        raise ValueError(
            "Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode properties"
        )


def _nat(options: Options, listen: Address, connect: Address) -> None:
    if not _on(options, "nat"):
        return
    if options.get("bind", "host") != "host":
        raise ValueError("Only host-bound proxies can use NAT")
    if listen.protocol != connect.protocol or listen.protocol == "unix":
        pair = f"{listen.protocol} <-> {connect.protocol}"
        raise ValueError(f"Proxying {pair} is not supported when using NAT")
    if listen.ip.version != connect.ip.version:
        raise ValueError("Cannot mix IP versions between listen and connect in nat mode")
    if listen.ip.is_unspecified:
        raise ValueError(f'Cannot listen on wildcard address "{listen.host}" when in nat mode')


def _pairing(options: Options, listen: Address, connect: Address) -> None:
    # LXD finds this out when it starts the device only.
    if listen.protocol == "udp" and connect.protocol != "udp":
        raise ValueError("Proxying from udp to non-udp protocol is not supported")


def _on(options: Options, name: str) -> bool:
    return parse_bool(options.get(name) or "false")


PROXY = DeviceType(
    "proxy",
    {
        "listen": _address,
        "connect": _address,
        "bind": _bind,
        "nat": boolean,
        "proxy_protocol": boolean,
        "security.uid": user_id,
        "security.gid": user_id,
        **OWNER,
    },
    rules=_rules,
)
