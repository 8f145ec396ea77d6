"""Zones: LXD's words for what they may not hold, what is in them, and who is answered."""

from __future__ import annotations

import base64
from dataclasses import replace

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import pytest

from core.configkeys.others import parse_dns_address
from core.errors import Invalid
from core.netrecords import NetworkZone, ZoneEntry, ZoneRecord
from core.records import Network, NicReservation
from services.network.domain import transfers, zones
from services.network.domain.transfers import Served

CONFIG = {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true", "ipv6.address": "fd42::1/64"}
NETWORK = Network(
    "br0",
    config={**CONFIG, "dns.zone.forward": "lab.example", "dns.zone.reverse.ipv4": "2.1.10.in-addr.arpa"},
)
NIC = NicReservation(instance_name="c1", network="br0", ipv4="10.1.2.9", ipv6="fd42::9")
SECRET = base64.b64encode(b"0123456789abcdef").decode()
ZONE = NetworkZone(
    "default", "lab.example", config={"peers.sec.address": "192.0.2.5", "peers.sec.key": SECRET}
)
OPEN = replace(ZONE, config={"peers.sec.address": "192.0.2.5"})


def _texts(zone: NetworkZone, *records: ZoneRecord) -> list[str]:
    rows = zones.content(zone, records, [NETWORK], {"br0": [NIC]})
    return [f"{row.name} {row.ttl} {row.type} {row.value}" for row in rows]


def test_a_forward_zone_has_gateways_instances_and_records() -> None:
    www = ZoneRecord("default", "lab.example", "www", entries=(ZoneEntry("A", 900, "192.0.2.1"),))
    apex = ZoneRecord("default", "lab.example", "@", entries=(ZoneEntry("TXT", 0, '"a b"'),))
    assert _texts(replace(OPEN, config={"dns.nameservers": "ns1.lab.example"}), www, apex) == [
        "lab.example. 300 NS ns1.lab.example.",
        "br0.gw.lab.example. 300 A 10.1.2.1",
        "c1.lab.example. 300 A 10.1.2.9",
        "br0.gw.lab.example. 300 AAAA fd42::1",
        "c1.lab.example. 300 AAAA fd42::9",
        "www.lab.example. 900 A 192.0.2.1",
        'lab.example. 300 TXT "a b"',
    ]


def test_a_reverse_zone_names_what_is_below_it() -> None:
    assert _texts(replace(OPEN, name="2.1.10.in-addr.arpa")) == [
        "1.2.1.10.in-addr.arpa. 300 PTR br0.gw.lab.example.",
        "9.2.1.10.in-addr.arpa. 300 PTR c1.lab.example.",
    ]


def test_a_zone_for_the_world_leaves_out_what_is_translated() -> None:
    assert _texts(replace(OPEN, config={"network.nat": "false"})) == [
        "br0.gw.lab.example. 300 AAAA fd42::1",
        "c1.lab.example. 300 AAAA fd42::9",
    ]


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([("FOO", "bar")], 'Bad zone record entry: dns: unknown RR type: "FOO"'),
        ([("SOA", "a b 1 1 1 1 1")], 'Bad zone record entry: dns: unknown RR type: "SOA"'),
        ([("TYPE99", "a")], 'Bad zone record entry: dns: unknown RR type: "TYPE99"'),
        ([("A", "nonsense")], 'Bad zone record entry: dns: bad A: "nonsense"'),
        ([("MX", "mail")], 'Bad zone record entry: dns: bad MX: "mail"'),
        ([("TXT", "a\nb")], 'Bad zone record entry: dns: bad TXT: "a\nb"'),
        ([("A", "192.0.2.1")] * 2, 'Duplicate record for type "A" and value "192.0.2.1"'),
    ],
)
def test_an_entry_is_refused_with_what_is_wrong(entries: list[tuple[str, str]], sentence: str) -> None:
    record = ZoneRecord("default", "z", "www", entries=tuple(ZoneEntry(t, 0, v) for t, v in entries))
    with pytest.raises(Invalid) as refused:
        zones.checked_record(record)
    assert refused.value.message == sentence


@pytest.mark.parametrize("name", ["a b", "a..b", ".", "-", "x" * 70, "a\nb", "a;b", "é"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    for check in (zones.checked_name, zones.checked_record_name):
        with pytest.raises(Invalid):
            check(name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("foo", "1"),
        ("peers.a.address", "10.0.0.300"),
        ("network.nat", "x"),
        ("dns.nameservers", "a b"),
    ],
)
def test_a_zone_key_is_checked(key: str, value: str) -> None:
    with pytest.raises(Invalid):
        zones.checked(replace(OPEN, config={key: value}))


@pytest.mark.parametrize("key", ["?", "abc", "a b"])
def test_a_key_that_is_no_base64_is_taken_and_lets_nobody_in(key: str) -> None:
    """LXD takes any text; neither may it open the zone, nor shut out peers that have a proper key."""
    zone = zones.checked(replace(OPEN, config={"peers.a.key": key, **ZONE.config}))

    assert not zones.is_key(key)
    assert _ask(replace(zone, config={"peers.a.key": key}), "AXFR")[0].rcode() != dns.rcode.NOERROR
    assert _ask(zone, "AXFR", secret=SECRET)[0].rcode() == dns.rcode.NOERROR


# --- answers ---------------------------------------------------------------------------------------


def _ask(
    zone: NetworkZone,
    kind: str,
    *,
    address: str = "192.0.2.5",
    secret: str = "",
    stream: bool = True,
    name: str = "",
) -> list[dns.message.Message]:
    query = dns.message.make_query(name or "lab.example.", kind)
    ring = {}
    if secret:
        ring = {dns.name.from_text("lab.example_sec."): dns.tsig.Key("lab.example_sec.", secret)}
        query.use_tsig(ring, "lab.example_sec.")
    served = Served(zone, 7, zones.content(zone, [], [NETWORK], {"br0": [NIC] * 300}))
    known = {zones.key_name(zone, peer): peer.key for peer in zones.peers(zone) if zones.is_key(peer.key)}
    found = transfers.answers(
        query.to_wire(), address, {"lab.example": zone}.get, lambda _: served, known, is_stream=stream
    )
    messages, context = [], None
    for wire in found:
        message = dns.message.from_wire(
            wire, keyring=ring, request_mac=query.mac, multi=True, tsig_ctx=context, xfr=True
        )
        context = message.tsig_ctx
        messages.append(message)
    return messages


def test_a_peer_gets_the_whole_zone_between_two_soas_in_several_messages() -> None:
    messages = _ask(OPEN, "AXFR")
    rows = [rrset for message in messages for rrset in message.answer]
    assert len(messages) > 1
    assert [rows[0].rdtype, rows[-1].rdtype] == [dns.rdatatype.SOA] * 2
    assert str(rows[0]) == "lab.example. 3600 IN SOA lab.example. hostmaster.lab.example. 7 120 60 86400 30"


def test_with_a_key_every_message_is_signed() -> None:
    messages = _ask(ZONE, "AXFR", secret=SECRET)
    assert len(messages) > 1
    assert all(message.had_tsig for message in messages)


@pytest.mark.parametrize(
    ("zone", "asked", "code"),
    [
        (OPEN, {"address": "192.0.2.6"}, dns.rcode.NXDOMAIN),
        (replace(OPEN, config={}), {}, dns.rcode.NXDOMAIN),
        (ZONE, {}, dns.rcode.NXDOMAIN),
        (OPEN, {"name": "other.example."}, dns.rcode.NXDOMAIN),
        (ZONE, {"secret": base64.b64encode(b"other").decode()}, dns.rcode.NOTAUTH),
    ],
)
def test_who_is_no_peer_learns_nothing(
    zone: NetworkZone, asked: dict[str, str], code: dns.rcode.Rcode
) -> None:
    query = dns.message.make_query(asked.get("name", "lab.example."), "AXFR")
    if secret := asked.get("secret"):
        query.use_tsig(dns.tsig.Key("lab.example_sec.", secret))
    served = Served(zone, 7, [])
    known = {"lab.example_sec.": SECRET}
    [wire] = transfers.answers(
        query.to_wire(),
        asked.get("address", "192.0.2.5"),
        {"lab.example": zone}.get,
        lambda _: served,
        known,
        is_stream=True,
    )
    message = (
        dns.message.from_wire(wire, keyring=False)
        if code != dns.rcode.NOTAUTH
        else dns.message.from_wire(wire)
    )
    assert (message.rcode(), message.answer) == (code, [])


def test_by_datagram_only_the_soa_is_told() -> None:
    for kind in ("SOA", "AXFR", "IXFR"):
        [message] = _ask(OPEN, kind, stream=False)
        assert [rrset.rdtype for rrset in message.answer] == [dns.rdatatype.SOA]


def test_other_questions_are_not_for_this_server() -> None:
    [message] = _ask(OPEN, "A")
    assert message.rcode() == dns.rcode.NOTIMP


def _never(zone: NetworkZone) -> Served:
    raise AssertionError(zone)


@pytest.mark.parametrize("wire", [b"", b"x", bytes(12), b"\xff" * 40, bytes(11) + b"\x01" + b"\xc0\x0c" * 20])
def test_nonsense_gets_no_answer_that_hurts(wire: bytes) -> None:
    for message in transfers.answers(wire, "192.0.2.5", {}.get, _never, {}, is_stream=True):
        assert dns.message.from_wire(message, one_rr_per_rrset=True).answer == []


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("10.0.0.1:5353", ("10.0.0.1", 5353)),
        ("10.0.0.1", ("10.0.0.1", 53)),
        (":5353", ("", 5353)),
        ("[::]:5353", ("::", 5353)),
        ("fd42::1", ("fd42::1", 53)),
        ("[fd42::1]", ("fd42::1", 53)),
    ],
)
def test_where_to_listen_is_read_as_lxd_reads_it(text: str, parsed: tuple[str, int]) -> None:
    assert parse_dns_address(text) == parsed


@pytest.mark.parametrize("text", ["foo", "foo:53", "10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:99999", "fe80::1%a"])
def test_where_nobody_can_listen_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"resolve|port"):
        parse_dns_address(text)
