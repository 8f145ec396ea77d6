"""What entries of zone records are as resource records of DNS. Pure.

Not to be imported before it is needed: dnspython takes 5 MB of a service that mostly has no zones.
"""

from __future__ import annotations

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from core.netrecords import ZoneEntry

# What a zone has once and not from records, and what is no data.
_NOT_HERE = frozenset(
    ("SOA", "OPT", "TSIG", "TKEY", "AXFR", "IXFR", "ANY", "NONE", "MAILA", "MAILB", "RRSIG", "NSEC", "NSEC3")
)


def check(entry: ZoneEntry) -> None:
    """Raises: ValueError unless it is a resource record that a zone may have."""
    kind, text = entry.type.upper(), entry.value
    try:
        if kind in _NOT_HERE or kind.startswith("TYPE"):
            raise ValueError(kind)
        found = dns.rdatatype.from_text(kind)
    except (dns.exception.DNSException, ValueError):
        raise ValueError(f'unknown RR type: "{entry.type[:64]}"') from None
    try:
        if len(text) > 4096 or any(c in text for c in "\r\n"):
            raise ValueError(text)
        rdata(found, text).to_wire()
    except (dns.exception.DNSException, ValueError):
        raise ValueError(f'bad {entry.type}: "{text[:64]}"') from None


def rdata(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    """Raises: DNSException."""
    return dns.rdata.from_text(dns.rdataclass.IN, kind, text, origin=dns.name.root, relativize=False)
