"""Keys of the server that have LXD's checks but no effect here: those of clusters, and refused ones. Pure.

Source of tables and sentences: what LXD 5.0.2 answers.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

from core.configkeys.schema import ConfigKey, refusing
from core.units import parse_bool, parse_expiry, parse_int


def integer(value: str) -> int:
    try:
        return parse_int(value)
    except ValueError:
        raise ValueError("invalid integer") from None


def boolean(value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise ValueError("invalid boolean") from None


def _offline(value: str) -> int:
    if (seconds := integer(value)) <= 10:
        raise ValueError("Value must be greater than '10'")
    return seconds


def _voters(value: str) -> int:
    count = integer(value)
    if count < 3 or count % 2 == 0:
        raise ValueError("Value must be an odd number equal to or higher than 3")
    return count


def _standby(value: str) -> int:
    if not 0 <= (count := integer(value)) <= 5:
        raise ValueError("Value must be between 0 and 5")
    return count


def _ipv4(value: str) -> IPv4Address:
    try:
        return IPv4Address(value)
    except AddressValueError:
        raise ValueError(f'Not an IPv4 address "{value[:64]}"') from None


_OF_CLUSTERS = "of clusters; a single member stores it, as with LXD"
CLUSTER = (
    ConfigKey("cluster.offline_threshold", _offline, _OF_CLUSTERS, "20"),
    ConfigKey("cluster.max_voters", _voters, _OF_CLUSTERS, "3"),
    ConfigKey("cluster.max_standby", _standby, _OF_CLUSTERS, "2"),
    ConfigKey("cluster.images_minimal_replica", integer, _OF_CLUSTERS, "3"),
    ConfigKey("cluster.join_token_expiry", parse_expiry, _OF_CLUSTERS, "3H"),
)
_BGP = "BGP is not available in this version"
_PROXY = "images are fetched directly, so that the addresses they come from can be checked"
_PAGES = "pages of other sites may not use the API"
_TRUST = "clients are trusted by certificate"
_OVN = "OVN is not available in this version"
_RBAC_KEYS = (
    *(f"agent.{what}" for what in ("private_key", "public_key", "url", "username")),
    *("api.expiry", "api.key", "api.url", "expiry"),
)
_STARTS = "addresses are given when Podium starts, by PODIUM_HTTPS and PODIUM_METRICS_PORT"
_FOLDERS = "backups and images lie in Podium's own folder; give that the space it needs"
REFUSED = (
    refusing("core.bgp_address", _BGP),
    refusing("core.bgp_asn", _BGP, integer),
    refusing("core.bgp_routerid", _BGP, _ipv4),
    refusing("core.debug_address", "the processes open no ports for debugging"),
    refusing("core.https_allowed_credentials", _PAGES, boolean),
    *(refusing(f"core.https_allowed_{what}", _PAGES) for what in ("headers", "methods", "origin")),
    refusing("core.https_trusted_proxy", "the address of a connection is that of its peer"),
    refusing("core.metrics_address", _STARTS),
    refusing("cluster.https_address", _STARTS),
    *(refusing(f"core.proxy_{what}", _PROXY) for what in ("http", "https", "ignore_hosts")),
    refusing("core.trust_ca_certificates", "clients are trusted one by one", boolean),
    *(refusing(f"candid.api.{what}", _TRUST) for what in ("key", "url")),
    refusing("candid.domains", _TRUST),
    refusing("candid.expiry", _TRUST, integer),
    *(refusing(f"rbac.{what}", _TRUST) for what in _RBAC_KEYS),
    *(refusing(f"maas.{what}", "MAAS is not supported") for what in ("api.key", "api.url", "machine")),
    *(refusing(f"network.ovn.{what}", _OVN) for what in ("integration_bridge", "northbound_connection")),
    *(refusing(f"storage.{what}_volume", _FOLDERS) for what in ("backups", "images")),
)
