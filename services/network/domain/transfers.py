"""Answers of the DNS server that hands zones to their peers: SOA, AXFR and IXFR, and nothing else. Pure.

Who is no peer is told that there is no such zone. Source: RFC 5936, RFC 8945; the rest is as LXD does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig

from core.netrecords import NetworkZone
from services.network.domain import zones
from services.network.domain.zonedata import rdata
from services.network.domain.zones import Row

_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
_ROWS = 200


@dataclass(frozen=True)
class Served:
    """A zone as it is now."""

    zone: NetworkZone
    serial: int
    rows: list[Row]


Find = Callable[[str], NetworkZone | None]
Look = Callable[[NetworkZone], Served]


def answers(
    wire: bytes, address: str, find: Find, look: Look, keys: dict[str, str], *, is_stream: bool
) -> Iterator[bytes]:
    """Yield the messages that answer *wire*; none for what is no question.

    *keys*: the secrets of all peers by name of key. A zone is *look*ed at for a peer alone. By datagram none
    is handed out.
    """
    ring = {dns.name.from_text(name): dns.tsig.Key(name, secret) for name, secret in keys.items()}
    try:
        query = dns.message.from_wire(wire, keyring=ring)
    except (dns.tsig.BadTime, dns.tsig.BadSignature, dns.tsig.BadKey, dns.message.UnknownTSIGKey):
        yield from _refused(wire)
        return
    except (dns.exception.DNSException, ValueError):
        return
    if query.flags & dns.flags.QR:
        return
    code, zone = _decide(query, address, find)
    if zone is None:
        response = dns.message.make_response(query)
        response.set_rcode(code)
        yield response.to_wire()
        return
    served = look(zone)
    if query.question[0].rdtype in _TRANSFERS and is_stream:
        yield from _transfer(query, served)
        return
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA
    response.answer.append(_rrset(zones.soa(served.zone, served.serial)))
    yield response.to_wire()


def _decide(
    query: dns.message.Message, address: str, find: Find
) -> tuple[dns.rcode.Rcode, NetworkZone | None]:
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        return dns.rcode.NOTIMP, None
    question = query.question[0]
    if question.rdtype not in (*_TRANSFERS, dns.rdatatype.SOA):
        return dns.rcode.NOTIMP, None
    zone = find(question.name.to_text(omit_final_dot=True))
    signed_by = query.keyname.to_text() if query.keyname else ""
    if zone is None or not zones.may_have(zone, address, signed_by):
        return dns.rcode.NXDOMAIN, None
    return dns.rcode.NOERROR, zone


def _refused(wire: bytes) -> Iterator[bytes]:
    """A bad signature gets no more than anybody without one."""
    try:
        query = dns.message.from_wire(wire, keyring=False, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return
    response = dns.message.Message(query.id)
    response.flags = dns.flags.QR
    response.question = list(query.question)
    response.set_rcode(dns.rcode.NOTAUTH)
    yield response.to_wire()


def _transfer(query: dns.message.Message, served: Served) -> Iterator[bytes]:
    ends = zones.soa(served.zone, served.serial)
    rows, context = [ends, *served.rows, ends], None
    for start in range(0, len(rows), _ROWS):
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if start:
            response.question = []
        # Each by itself: a set would be put together, and the SOA at both ends with it.
        response.answer = [_rrset(row) for row in rows[start : start + _ROWS]]
        yield response.to_wire(multi=True, tsig_ctx=context, max_size=65535)
        context = response.tsig_ctx


def _rrset(row: Row) -> dns.rrset.RRset:
    data = rdata(dns.rdatatype.from_text(row.type), row.value)
    return dns.rrset.from_rdata(dns.name.from_text(row.name), row.ttl, data)
