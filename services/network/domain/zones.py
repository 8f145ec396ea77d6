"""DNS zones of networks: what they may hold, and what is in them. Pure.

Names in records are relative to their zone, "@" is the zone itself. The contents are LXD's: addresses of
gateways and instances, or names for them in reverse zones, and what the records say.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from core.configkeys.schema import lines, without_empty
from core.errors import Invalid
from core.netrecords import NetworkZone, ZoneEntry, ZoneRecord
from core.records import Network, NicReservation
from core.units import parse_bool
from services.network.domain.acls import items
from services.network.domain.addresses import subnets_of

_TTL, _SOA_TTL = 300, 3600
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PEER = re.compile(r"peers\.([A-Za-z0-9_-]{1,63})\.(address|key)")
_MOST_ENTRIES = 512


@dataclass(frozen=True)
class Row:
    """One resource record; name is absolute."""

    name: str
    ttl: int
    type: str
    value: str


@dataclass(frozen=True)
class Peer:
    """Who may have the zone: from *address*, with *key* (base64, else nobody has it), or both."""

    name: str
    address: str = ""
    key: str = ""


# --- what is asked for -----------------------------------------------------------------------------


def checked_name(name: str) -> str:
    """Raises: Invalid."""
    if not name:
        raise Invalid("BAD_NAME", "Name is required")
    labels = name.split(".")
    if len(name) > 250 or not all(_LABEL.fullmatch(label) for label in labels):
        why = "use labels of letters, digits, '-' and '_' joined by dots"
        raise Invalid("BAD_NAME", f'Invalid zone name "{name[:64]}": {why}', about=name[:64])
    return name


def checked_record_name(name: str) -> str:
    """Raises: Invalid."""
    labels = name.split(".")
    first_may_be_any = labels[1:] if labels[0] == "*" else labels
    if name != "@" and (len(name) > 200 or not all(_LABEL.fullmatch(label) for label in first_may_be_any)):
        why = "use @ or labels of letters, digits, '-' and '_' joined by dots"
        raise Invalid("BAD_NAME", f'Invalid record name "{name[:64]}": {why}', about=name[:64])
    return name


def checked(zone: NetworkZone) -> NetworkZone:
    """Raises: Invalid, in LXD's words where it has some."""
    for key, value in zone.config.items():
        try:
            _check_key(key, value)
            lines(value)
        except ValueError as exc:
            said = f'Invalid value for config option "{key[:64]}": {exc}'
            raise Invalid("BAD_VALUE", said, about=key[:64]) from None
    _check_description(zone.description)
    return replace(zone, config=without_empty(zone.config))


def _check_key(key: str, value: str) -> None:
    peer = _PEER.fullmatch(key)
    if peer and value and peer[2] == "address":
        if not _is_address(value):
            raise ValueError(f'Not an IP address "{value[:64]}"')
    elif peer:
        return  # any text, as with LXD; is_key() tells whether somebody can sign with it
    elif key == "dns.nameservers":
        for name in items(value):
            if not all(_LABEL.fullmatch(label) for label in name.rstrip(".").split(".")):
                raise ValueError(f'Invalid name "{name[:64]}"')
    elif key == "network.nat":
        parse_bool(value or "true")
    elif not peer and not (key.startswith("user.") and len(key) < 256):
        raise Invalid("UNKNOWN_KEY", f'Invalid config option "{key[:64]}"', about=key[:64])


def is_key(text: str) -> bool:
    """Whether a peer can sign with it: base64, as tsig-keygen writes it. With another nobody is let in."""
    with contextlib.suppress(binascii.Error, ValueError):
        return bool(base64.b64decode(text, validate=True))
    return False


def _is_address(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return "%" not in text and bool(ip_address(text))
    return False


def _check_description(text: str) -> None:
    try:
        lines(text)
    except ValueError as exc:
        raise Invalid("BAD_VALUE", f"Invalid value for Description: {exc}", about="description") from None


def checked_record(record: ZoneRecord) -> ZoneRecord:
    """Raises: Invalid, in LXD's words."""
    for key, value in record.config.items():
        if not key.startswith("user.") or len(key) > 255:
            raise Invalid("UNKNOWN_KEY", f'Invalid config option "{key[:64]}"', about=key[:64])
        _check_description(value)
    _check_description(record.description)
    if len(record.entries) > _MOST_ENTRIES:
        raise Invalid("TOO_MANY_ENTRIES", f"A record has at most {_MOST_ENTRIES} entries")
    seen = set[tuple[str, str]]()
    for entry in record.entries:
        _check_entry(entry)
        if (entry.type, entry.value) in seen:
            said = f'Duplicate record for type "{entry.type}" and value "{entry.value[:64]}"'
            raise Invalid("TWICE", said, about=record.name)
        seen.add((entry.type, entry.value))
    return replace(record, config=without_empty(record.config))


def _check_entry(entry: ZoneEntry) -> None:
    from services.network.domain import zonedata  # not before it is needed: it is big

    if not 0 <= entry.ttl < 1 << 31:
        raise Invalid("BAD_TTL", f"Bad zone record entry: dns: bad TTL: {entry.ttl}", about=entry.type)
    try:
        zonedata.check(entry)
    except ValueError as exc:
        raise Invalid("BAD_ENTRY", f"Bad zone record entry: dns: {exc}", about=entry.type[:64]) from None


# --- who may have it -------------------------------------------------------------------------------


def peers(zone: NetworkZone) -> list[Peer]:
    found: dict[str, Peer] = {}
    for key, value in zone.config.items():
        if match := _PEER.fullmatch(key):
            peer = found.get(match[1], Peer(match[1]))
            found[match[1]] = (
                replace(peer, address=value) if match[2] == "address" else replace(peer, key=value)
            )
    return list(found.values())


def key_name(zone: NetworkZone, peer: Peer) -> str:
    """Return the name of a peer's key, as LXD has it."""
    return f"{zone.name}_{peer.name}."


def may_have(zone: NetworkZone, address: str, signed_by: str) -> bool:
    """Return whether who asks is a peer. *signed_by*: the name of the key that proved it, or empty."""
    for peer in peers(zone):
        is_there = not peer.address or ip_address(peer.address) == ip_address(address)
        has_key = not peer.key or signed_by.lower() == key_name(zone, peer).lower()
        if is_there and has_key and (peer.address or peer.key):
            return True
    return False


# --- what is in it ---------------------------------------------------------------------------------


def content(
    zone: NetworkZone,
    records: Iterable[ZoneRecord],
    networks: Iterable[Network],
    nics: Mapping[str, Iterable[NicReservation]],
) -> list[Row]:
    """Return all of the zone but its SOA. *nics*: those of networks by name."""
    apex = f"{zone.name}."
    rows = [Row(apex, _TTL, "NS", _absolute(name)) for name in items(zone.config.get("dns.nameservers", ""))]
    for network in networks:
        on = list(nics.get(network.name, ()))
        if network.config.get("dns.zone.forward") == zone.name:
            rows += _forward(zone, network, on)
        for version in ("ipv4", "ipv6"):
            if network.config.get(f"dns.zone.reverse.{version}") == zone.name:
                rows += _reverse(zone, network, on, version)
    for record in records:
        name = apex if record.name == "@" else f"{record.name}.{apex}"
        rows += [Row(name, entry.ttl or _TTL, entry.type, entry.value) for entry in record.entries]
    return rows


def soa(zone: NetworkZone, serial: int) -> Row:
    value = f"{zone.name}. hostmaster.{zone.name}. {serial} 120 60 86400 30"
    return Row(f"{zone.name}.", _SOA_TTL, "SOA", value)


def _absolute(name: str) -> str:
    return name if name.endswith(".") else f"{name}."


def _shows(zone: NetworkZone, network: Network, version: str) -> bool:
    """With network.nat=false a zone is for the world, which translated addresses are not for."""
    is_translated = parse_bool(network.config.get(f"{version}.nat") or "false")
    return not is_translated or parse_bool(zone.config.get("network.nat") or "true")


def _named(network: Network, nics: Iterable[NicReservation], version: str) -> Iterator[tuple[str, str]]:
    """Yield names, relative to the forward zone, and addresses."""
    if bridge := getattr(subnets_of(network.config), version):
        yield f"{network.name}.gw", str(bridge.ip)
    for nic in sorted(nics, key=lambda nic: (nic.instance_name, nic.device)):
        if address := getattr(nic, version):
            yield nic.instance_name, address


def _forward(zone: NetworkZone, network: Network, nics: list[NicReservation]) -> Iterator[Row]:
    for version, kind in (("ipv4", "A"), ("ipv6", "AAAA")):
        if _shows(zone, network, version):
            for name, address in _named(network, nics, version):
                yield Row(f"{name}.{zone.name}.", _TTL, kind, address)


def _reverse(zone: NetworkZone, network: Network, nics: list[NicReservation], version: str) -> Iterator[Row]:
    """Names need a forward zone; what is not below this one is not its business."""
    forward = network.config.get("dns.zone.forward", "")
    if not forward or not _shows(zone, network, version):
        return
    for name, address in _named(network, nics, version):
        pointer = ip_address(address).reverse_pointer
        if pointer.endswith(f".{zone.name.lower()}"):
            yield Row(f"{pointer}.", _TTL, "PTR", f"{name}.{forward}.")
