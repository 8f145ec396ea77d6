"""ACLs as nftables rules of family inet. Pure.

What comes from the bridge is egress and what goes to it ingress, whether the other end is the host, beyond
it, or another port of the bridge (the kernel shows bridged packets to these hooks too, see
net.bridge.bridge-nf-call-iptables). Plain chains, `egr` and `igr`, hold the verdicts and `return` what may
pass, so that a packet to or from a NIC with ACLs of its own is asked for both. In them each such NIC has a
block that nobody leaves; the rest is the network's. The order is LXD's: drop, reject, allow, default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from core.configkeys.network import NETWORK
from core.netrecords import AclRule, NetworkAcl
from core.records import Network, NicReservation
from core.units import parse_bool
from services.network.domain import spans
from services.network.domain.acls import EXTERNAL, INTERNAL, SET, items, named_in
from services.network.domain.addresses import link_local, subnets_of
from services.network.domain.rulebook import Rulebook
from services.network.domain.spans import Span

EGRESS, INGRESS, AMONG, BOTH = "egr", "igr", "sib", "two"
CHAINS = (EGRESS, INGRESS, AMONG, BOTH)
_DIRECTIONS = {"egress": EGRESS, "ingress": INGRESS}
_IP = {"ipv4": "ip", "ipv6": "ip6"}
_ORDER = ("drop", "reject", "allow")
# Without these nothing works, whatever an ACL says: errors and neighbour discovery; routers are asked from
# inside and answer from outside. Source: RFC 4890, section 4.4; LXD lets the same through.
_ERRORS = "icmp type { 3, 11, 12 } return"
_NEIGHBOURS = "icmpv6 type {{ 1, 2, 3, 4, {}135, 136, 143 }} return"
_NEEDED = {"egress": _NEIGHBOURS.format("133, "), "ingress": _NEIGHBOURS.format("134, ")}
_RATE = "limit rate 50/second burst 100 packets"


def has_acls(network: Network, nics: Iterable[NicReservation]) -> bool:
    """Return whether anything that passes the bridge is bounded by an ACL."""
    return bool(named_in(network.config)) or any(named_in(nic.options) for nic in nics)


def hook_rules(bridge: str, *directions: str) -> list[str]:
    """Return what a base chain begins with: answers pass, the rest is asked for."""
    return _answers(bridge, *directions) + [f"{_side(bridge, d)} jump {_DIRECTIONS[d]}" for d in directions]


def forward_rules(network: Network) -> list[str]:
    """The same for what is forwarded, where both ends may be on the bridge."""
    bridge = network.name
    if not named_in(network.config):
        return hook_rules(bridge, "egress", "ingress")
    return [
        *_answers(bridge, "egress", "ingress"),
        f'iifname "{bridge}" oifname "{bridge}" jump {AMONG}',
        f'iifname "{bridge}" oifname != "{bridge}" jump {EGRESS}',
        f'iifname != "{bridge}" oifname "{bridge}" jump {INGRESS}',
    ]


def _side(bridge: str, direction: str) -> str:
    return f'{"iifname" if direction == "egress" else "oifname"} "{bridge}"'


def _answers(bridge: str, *directions: str) -> list[str]:
    return [f"{_side(bridge, d)} ct state established,related accept" for d in directions]


def chains(network: Network, nics: Iterable[NicReservation], book: Rulebook) -> dict[str, list[str]]:
    """Return the rules of the plain chains."""
    own = [nic for nic in nics if named_in(nic.options)]
    found = {
        chain: [
            _ERRORS,
            _NEEDED[direction],
            *_services(network, direction),
            *(rule for nic in own for rule in _block(network, nic, direction, book)),
            *_of_network(network, direction, book),
        ]
        for direction, chain in _DIRECTIONS.items()
    }
    if named_in(network.config):
        found[BOTH] = [f"jump {EGRESS}", f"jump {INGRESS}"]
        found[AMONG] = _among(network, own, book)
    return found


def _among(network: Network, own: list[NicReservation], book: Rulebook) -> list[str]:
    """Between two NICs of which none has ACLs of its own: either direction may let it pass, as with LXD."""
    found = [f"ether saddr {{ {', '.join(nic.hwaddr for nic in own)} }} goto {BOTH}"] if own else []
    for version in ("ipv4", "ipv6"):
        if addresses := [address for nic in own for address in _addresses(nic, version)]:
            found.append(f"{_IP[version]} daddr {{ {', '.join(addresses)} }} goto {BOTH}")
    acls = _named(named_in(network.config), book)
    rules = _in_order(network, acls, ("egress", "ingress"), book)
    return [*found, _ERRORS, _NEIGHBOURS.format(""), *rules, *_default(acls, "egress", network.config, book)]


def _addresses(nic: NicReservation, version: str) -> list[str]:
    found = [nic.ipv4] if version == "ipv4" else [nic.ipv6, link_local(nic.hwaddr)]
    return [address for address in found if address]


def _services(network: Network, direction: str) -> list[str]:
    """DHCP and DNS of the bridge itself, and what it answers to nobody's address."""
    subnets = subnets_of(network.config)
    if direction == "ingress":
        return ["udp sport 67 udp dport 68 return", "ip6 saddr fe80::/10 udp sport 547 udp dport 546 return"]
    found = ["udp sport 68 udp dport 67 return", "ip6 daddr ff02::1:2 udp dport 547 return"]
    if subnets.ipv4:
        found.append(f"ip daddr {subnets.ipv4.ip} meta l4proto {{ tcp, udp }} th dport 53 return")
    if subnets.ipv6:
        found.append(f"ip6 daddr {subnets.ipv6.ip} meta l4proto {{ tcp, udp }} th dport 53 return")
    return found


def _of_network(network: Network, direction: str, book: Rulebook) -> list[str]:
    if not (names := named_in(network.config)):
        return []
    return _verdicts(network, names, direction, network.config, book)


def _block(network: Network, nic: NicReservation, direction: str, book: Rulebook) -> Iterator[str]:
    """The rules of one NIC: its ACLs and the network's, with its own defaults where it has some.

    Its filters see to it that nothing leaves with another MAC or address.
    """
    names = list(dict.fromkeys([*named_in(network.config), *named_in(nic.options)]))
    rules = _verdicts(network, names, direction, {**network.config, **nic.options}, book)
    inside = "{ " + "; ".join(rules) + "; }"
    if direction == "egress":
        yield f"ether saddr {nic.hwaddr} goto {inside}"
        return
    for version in ("ipv4", "ipv6"):
        if found := _addresses(nic, version):
            yield f"{_IP[version]} daddr {{ {', '.join(found)} }} goto {inside}"


def _verdicts(
    network: Network, names: Iterable[str], direction: str, config: Mapping[str, str], book: Rulebook
) -> list[str]:
    acls = _named(names, book)
    return _in_order(network, acls, (direction,), book) + _default(acls, direction, config, book)


def _named(names: Iterable[str], book: Rulebook) -> list[NetworkAcl]:
    return [book.acls[name] for name in names if name in book.acls]


def _in_order(
    network: Network, acls: list[NetworkAcl], directions: tuple[str, ...], book: Rulebook
) -> list[str]:
    found: list[str] = []
    for action in _ORDER:
        for acl in acls:
            for direction in directions:
                for number, rule in enumerate(getattr(acl, direction)):
                    if rule.action == action and rule.state != "disabled":
                        found += _rule(network, acl, f"{direction[0]}{number}", rule, book)
    return found


def _default(acls: list[NetworkAcl], direction: str, config: Mapping[str, str], book: Rulebook) -> list[str]:
    key = f"security.acls.default.{direction}"
    action, log = NETWORK.get(config, f"{key}.action"), []
    if acls and parse_bool(NETWORK.get(config, f"{key}.logged")):
        log = _log(acls[0], f"{direction[0]}-", action, "", book)
    return [*log, _verdict(action)]


def _verdict(action: str) -> str:
    return {"allow": "return"}.get(action, action)


def _log(acl: NetworkAcl, rule: str, action: str, match: str, book: Rulebook) -> list[str]:
    if not book.log_group:
        return []
    prefix = f'log prefix "podium {acl.id} {rule} {action} " group {book.log_group} snaplen 128'
    return [f"{match} {_RATE} {prefix}".strip()]


def _rule(network: Network, acl: NetworkAcl, label: str, rule: AclRule, book: Rulebook) -> Iterator[str]:
    for match in _matches(network, rule, book):
        if rule.state == "logged":
            yield from _log(acl, label, rule.action, match, book)
        yield f"{match} {_verdict(rule.action)}".strip()


def _matches(network: Network, rule: AclRule, book: Rulebook) -> Iterator[str]:
    """Yield one match for each family that the rule is about; none when its subjects are nobody."""
    rest = _protocol(rule)
    sides = (("saddr", rule.source), ("daddr", rule.destination))
    if not rule.source and not rule.destination:
        yield rest
        return
    for version in ("ipv4", "ipv6"):
        parts, wanted = list[str](), rule.protocol not in ("icmp4", "icmp6") or _is_of(rule, version)
        for side, text in sides:
            spanned = _spans(network, text, version, book) if text else []
            wanted = wanted and bool(spanned or not text)
            if spanned:
                parts.append(f"{_IP[version]} {side} {spans.address_set(spanned, version)}")
        if wanted:
            yield " ".join([*parts, rest]).strip()


def _is_of(rule: AclRule, version: str) -> bool:
    return rule.protocol[-1] == version[-1]


def _protocol(rule: AclRule) -> str:
    if rule.protocol in ("icmp4", "icmp6"):
        word = "icmp" if rule.protocol == "icmp4" else "icmpv6"
        parts = [f"meta l4proto {'icmp' if word == 'icmp' else 'ipv6-icmp'}"]
        parts += [f"{word} type {rule.icmp_type}"] if rule.icmp_type else []
        return " ".join([*parts, *([f"{word} code {rule.icmp_code}"] if rule.icmp_code else [])])
    if not rule.protocol:
        return ""
    parts = [f"meta l4proto {rule.protocol}"]
    for side, text in (("sport", rule.source_port), ("dport", rule.destination_port)):
        if text:
            ports = spans.port_set(spans.parse_port(port) for port in items(text))
            parts.append(f"{rule.protocol} {side} {ports}")
    return " ".join(parts)


def _spans(network: Network, text: str, version: str, book: Rulebook) -> list[Span]:
    found = list[Span]()
    for subject in items(text):
        found += _subject(network, subject, version, book)
    return found


def _subject(network: Network, subject: str, version: str, book: Rulebook) -> Iterable[Span]:
    if subject in (INTERNAL, EXTERNAL):
        inside = _inside(network, version)
        return inside if subject == INTERNAL else spans.without(inside, version)
    if subject.startswith(SET):
        members = (spans.parse_subject(address) for address in book.sets.get(subject, ()))
    elif subject in book.acls:
        members = (spans.parse_subject(address) for address in book.members.get(subject, ()))
    else:
        members = (spans.parse_subject(s) for s in [subject] if _is_address(s))
    return [span for family, span in members if family == version]


def _is_address(subject: str) -> bool:
    """An ACL that is gone names nobody."""
    try:
        spans.parse_subject(subject)
    except ValueError:
        return False
    return True


def _inside(network: Network, version: str) -> list[Span]:
    """The subnet of the bridge, those behind it, and addresses of the link."""
    bridge = getattr(subnets_of(network.config), version)
    texts = [str(bridge.network)] if bridge else []
    texts += items(NETWORK.get(network.config, f"{version}.routes"))
    texts += ["fe80::/10"] if version == "ipv6" else []
    return [spans.parse_subject(text)[1] for text in texts]
