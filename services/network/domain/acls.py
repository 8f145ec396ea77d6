"""What an ACL may hold, in LXD's words. Pure. That it is checked here is what lets rules become text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace

from core.configkeys.schema import lines, without_empty
from core.errors import Invalid
from core.netrecords import AclRule, AddressSet, NetworkAcl
from services.network.domain import spans

ACTIONS = ("allow", "drop", "reject")
STATES = ("enabled", "disabled", "logged")
PROTOCOLS = ("icmp4", "icmp6", "tcp", "udp")
INTERNAL, EXTERNAL, SET = "@internal", "@external", "$"
DIRECTIONS = ("ingress", "egress")
_FAMILY = {"icmp4": "ipv4", "icmp6": "ipv6"}
_MOST_RULES, _MOST_ITEMS, _LONGEST, _MOST_ADDRESSES = 500, 256, 1024, 4096


@dataclass(frozen=True)
class _Kinds:
    """What a list of subjects holds."""

    names: bool = False
    ipv4: bool = False
    ipv6: bool = False

    @property
    def families(self) -> set[str]:
        return {v for v in ("ipv4", "ipv6") if getattr(self, v)}


def items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def checked(acl: NetworkAcl, names: Collection[str]) -> NetworkAcl:
    """Return *acl* with its lists in one form. *names*: the ACLs that its rules may name. Raises: Invalid."""
    for key, value in acl.config.items():
        if not key.startswith("user.") or len(key) > _LONGEST:
            raise Invalid("UNKNOWN_KEY", f'Invalid config option "{key[:64]}"', about=key[:64])
        _text(key, value)
    _text("Description", acl.description)
    found = {direction: _rules(getattr(acl, direction), direction, names) for direction in DIRECTIONS}
    config = without_empty(acl.config)
    return replace(acl, config=config, ingress=found["ingress"], egress=found["egress"])


def _text(what: str, value: str) -> None:
    try:
        lines(value)
    except ValueError as exc:
        raise Invalid("BAD_VALUE", f"Invalid value for {what[:64]}: {exc}", about=what[:64]) from None


def _rules(rules: Iterable[AclRule], direction: str, names: Collection[str]) -> tuple[AclRule, ...]:
    found = [_normal(rule) for rule in rules]
    if len(found) > _MOST_RULES:
        raise Invalid("TOO_MANY_RULES", f"An ACL has at most {_MOST_RULES} {direction} rules")
    for number, rule in enumerate(found):
        try:
            _check(rule, direction, names)
        except ValueError as exc:
            raise Invalid(
                "BAD_RULE", f"Invalid {direction} rule {number}: {exc}", about=str(number)
            ) from None
        if found.count(rule) > 1:
            raise Invalid("TWICE", f"Duplicate of {direction} rule {number}", about=str(number))
    return tuple(found)


def _normal(rule: AclRule) -> AclRule:
    values = {f.name: getattr(rule, f.name).strip() for f in fields(rule)}
    for name in ("source", "destination", "source_port", "destination_port"):
        values[name] = ",".join(items(values[name]))
    return AclRule(**values)


def _check(rule: AclRule, direction: str, names: Collection[str]) -> None:
    """Raises: ValueError."""
    _one_of("Action", rule.action, ACTIONS)
    _one_of("State", rule.state, STATES)
    if any(len(getattr(rule, f.name)) > 16 * _LONGEST for f in fields(rule)):
        raise ValueError("A field is too long")
    lines(rule.description)
    source = _subjects("Source", rule.source, direction, names)
    destination = _subjects("Destination", rule.destination, direction, names)
    _check_families(source, destination)
    if rule.protocol:
        _one_of("Protocol", rule.protocol, PROTOCOLS)
    if rule.protocol in _FAMILY:
        _check_icmp(rule, source, destination)
    elif rule.protocol:
        _check_ports(rule)
    else:
        _check_no_protocol(rule)


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} must be one of: {', '.join(choices)}")


def _subjects(what: str, text: str, direction: str, names: Collection[str]) -> _Kinds:
    found = _Kinds()
    if len(items(text)) > _MOST_ITEMS:
        raise ValueError(f"Invalid {what}: More than {_MOST_ITEMS} subjects")
    for subject in items(text):
        if subject in (INTERNAL, EXTERNAL) or (subject in names and not subject.startswith(SET)):
            _check_side(what, direction)
            found = replace(found, names=True)
            continue
        if subject.startswith(SET) and subject in names:  # of either family, at either end
            found = replace(found, names=True)
            continue
        if subject.startswith("@"):
            _check_side(what, direction)
        try:
            version, _ = spans.parse_subject(subject)
        except ValueError:
            raise ValueError(f'Invalid {what}: Invalid subject "{subject[:64]}"') from None
        found = replace(found, ipv4=found.ipv4 or version == "ipv4", ipv6=found.ipv6 or version == "ipv6")
    return found


def _check_side(what: str, direction: str) -> None:
    """A name says who is at the other end; at this one is always the instance."""
    if (what, direction) in (("Source", "egress"), ("Destination", "ingress")):
        raise ValueError(f'Invalid {what}: Named subjects not allowed in "{what}" for "{direction}" rules')


def _check_families(source: _Kinds, destination: _Kinds) -> None:
    for version in ("ipv4", "ipv6"):
        for one, other in ((source, destination), (destination, source)):
            has_none = not other.names and not getattr(other, version)
            if getattr(one, version) and has_none and other != _Kinds():
                raise ValueError("Conflicting IP family types used for Source and Destination")


def _check_icmp(rule: AclRule, source: _Kinds, destination: _Kinds) -> None:
    for what, ports in (("Source", rule.source_port), ("Destination", rule.destination_port)):
        if ports:
            raise ValueError(f'{what} port cannot be used with "{rule.protocol}" protocol')
    for what, kinds in (("source", source), ("destination", destination)):
        for version in sorted(kinds.families - {_FAMILY[rule.protocol]}):
            words = version.replace("ip", "IP")
            raise ValueError(f'Cannot use {words} {what} addresses with "{rule.protocol}" protocol')
    for what, value in (("type", rule.icmp_type), ("code", rule.icmp_code)):
        if value and not (value.isascii() and value.isdigit() and len(value) < 4 and int(value) < 256):
            why = f'Invalid value for an integer "{value[:32]}". Must be between 0 and 255'
            raise ValueError(f"Invalid ICMP {what}: {why}")


def _check_ports(rule: AclRule) -> None:
    for what, value in (("type", rule.icmp_type), ("code", rule.icmp_code)):
        if value:
            raise ValueError(f"ICMP {what} cannot be used with non-ICMP protocol")
    for what, value in (("Source", rule.source_port), ("Destination", rule.destination_port)):
        if len(items(value)) > _MOST_ITEMS:
            raise ValueError(f"Invalid {what} port: More than {_MOST_ITEMS} ports")
        for port in items(value):
            try:
                spans.parse_port(port)
            except ValueError as exc:
                raise ValueError(f"Invalid {what} port: {exc}") from None


def _check_no_protocol(rule: AclRule) -> None:
    for what, value in (
        ("ICMP type", rule.icmp_type),
        ("ICMP code", rule.icmp_code),
        ("Source port", rule.source_port),
        ("Destination port", rule.destination_port),
    ):
        if value:
            raise ValueError(f"{what} cannot be used without specifying protocol")


def names_in(acl: NetworkAcl) -> set[str]:
    """Return the ACLs that the rules of *acl* name as subjects."""
    found = set()
    for rule in (*acl.ingress, *acl.egress):
        found |= {s for s in items(rule.source) + items(rule.destination) if _is_name(s)}
    return found


def sets_in(acl: NetworkAcl) -> set[str]:
    """Return the address sets that its rules name, without the dollar."""
    rules = (*acl.ingress, *acl.egress)
    subjects = (s for rule in rules for s in items(rule.source) + items(rule.destination))
    return {s.removeprefix(SET) for s in subjects if s.startswith(SET)}


def checked_set(wanted: AddressSet) -> AddressSet:
    """Return it with its addresses in one form. Raises: Invalid."""
    for key, value in wanted.config.items():
        if not key.startswith("user.") or len(key) > _LONGEST:
            raise Invalid("UNKNOWN_KEY", f'Invalid config option "{key[:64]}"', about=key[:64])
        _text(key, value)
    _text("Description", wanted.description)
    if len(wanted.addresses) > _MOST_ADDRESSES:
        raise Invalid("TOO_MANY", f"An address set has at most {_MOST_ADDRESSES} addresses")
    for address in wanted.addresses:
        try:
            spans.parse_subject(address)
        except ValueError:
            raise Invalid("BAD_ADDRESS", f'Invalid address "{address[:64]}"', about=address[:64]) from None
    return replace(
        wanted, config=without_empty(wanted.config), addresses=tuple(dict.fromkeys(wanted.addresses))
    )


def _is_name(subject: str) -> bool:
    if subject.startswith(("@", SET)):
        return False
    try:
        spans.parse_subject(subject)
    except ValueError:
        return True
    return False


def named_in(config: Mapping[str, str]) -> list[str]:
    """Return the ACLs that a network or NIC names."""
    return items(config.get("security.acls", ""))
