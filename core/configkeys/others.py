"""Keys of networks, pools, projects and the server."""

from __future__ import annotations

from ipaddress import ip_interface

from core.configkeys.schema import ConfigKey, Schema, lines, one_of, text
from core.units import parse_bool, parse_bytes, parse_expiry, parse_int


def _address(value: str) -> object:
    if value in ("none", "auto"):
        return value
    interface = ip_interface(value)
    if interface.ip == interface.network.network_address and interface.network.num_addresses > 1:
        raise ValueError(f"Not a usable address {value!r}; give the bridge's own, such as 10.1.2.1/24")
    return interface


def _mtu(value: str) -> int:
    mtu = parse_int(value)
    if not 1280 <= mtu <= 16384:
        raise ValueError(f"{value} is not between 1280 and 16384")
    return mtu


NETWORK = Schema(
    "network",
    (
        ConfigKey("ipv4.address", _address, "bridge's address, auto or none"),
        ConfigKey("ipv6.address", _address, "bridge's address, auto or none"),
        ConfigKey("ipv4.nat", parse_bool, "masquerade", "false"),
        ConfigKey("ipv6.nat", parse_bool, "masquerade", "false"),
        ConfigKey("ipv4.dhcp", parse_bool, "hand out addresses", "true"),
        ConfigKey("ipv6.dhcp", parse_bool, "hand out addresses", "true"),
        ConfigKey("ipv4.firewall", parse_bool, "accept DHCP, DNS and forwarding", "true"),
        ConfigKey("ipv6.firewall", parse_bool, "accept DHCP, DNS and forwarding", "true"),
        ConfigKey("dns.domain", text, "domain of the names", "lxd"),
        ConfigKey("dns.mode", one_of("managed", "dynamic", "none"), "who may name", "managed"),
        ConfigKey("bridge.mtu", _mtu, "bytes", "1500"),
        ConfigKey("bridge.driver", one_of("native"), "bridge implementation", "native"),
        ConfigKey("raw.dnsmasq", refused="it would let a tenant write dnsmasq's configuration"),
    ),
    {"user.": lines},
)
POOL = Schema(
    "storage pool",
    (
        ConfigKey("source", text, "folder, file or block device"),
        ConfigKey("size", parse_bytes, "of the loop file"),
        ConfigKey("volatile.initial_source", text, "source asked for"),
    ),
    {"user.": lines, "volume.": text},
)
_FEATURES = ("images", "profiles", "storage.volumes", "networks", "networks.zones", "storage.buckets")
PROJECT = Schema(
    "project",
    tuple(ConfigKey(f"features.{name}", parse_bool, "has its own") for name in _FEATURES),
    {"user.": lines, "limits.": text, "restricted": text, "images.": text, "backups.": text},
)
SERVER = Schema(
    "server",
    (
        ConfigKey("core.https_address", text, "where the REST API listens"),
        ConfigKey("core.trust_password", text, "lets clients add themselves"),
        ConfigKey("core.remote_token_expiry", parse_expiry, "life of trust tokens"),
        ConfigKey("core.metrics_authentication", parse_bool, "ask for a certificate", "true"),
        ConfigKey("images.auto_update_interval", parse_int, "hours", "6"),
        ConfigKey("images.auto_update_cached", parse_bool, "also cached ones", "true"),
        ConfigKey("images.remote_cache_expiry", parse_int, "days", "10"),
        ConfigKey("images.compression_algorithm", one_of("gzip", "zstd", "xz", "bzip2", "none"), "", "gzip"),
    ),
    {"user.": lines},
)
SECRETS = frozenset({"core.trust_password"})
