"""Load balancers of networks: what they may say, and their rules. Pure.

LXD has them on OVN only; the words are its where it has some. Connections go to the backends in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address

from core.configkeys.schema import lines
from core.errors import Invalid
from core.netrecords import Backend, BalancerPort, NetworkLoadBalancer
from core.records import Network
from core.units import parse_bool
from services.network.domain import listeners, spans
from services.network.domain.listeners import Address, family, ports_of

_MOST = 128
_CHECK = "healthcheck"
_NUMBERS = {
    f"{_CHECK}.interval": (10, 1, 3600),
    f"{_CHECK}.timeout": (3, 1, 60),
    f"{_CHECK}.failure_count": (3, 1, 100),
    f"{_CHECK}.success_count": (3, 1, 100),
}


@dataclass(frozen=True)
class HealthCheck:
    """Seconds, and how often in a row it takes to be believed."""

    interval: int
    timeout: int
    failure_count: int
    success_count: int


def check_of(balancer: NetworkLoadBalancer) -> HealthCheck | None:
    """Return how its backends are asked whether they answer; None where nobody asks."""
    if not parse_bool(balancer.config.get(_CHECK) or "false"):
        return None
    numbers = [int(balancer.config.get(key) or default) for key, (default, _, _) in _NUMBERS.items()]
    return HealthCheck(*numbers)


def checked(balancer: NetworkLoadBalancer, network: Network) -> NetworkLoadBalancer:
    """Return *balancer* with its addresses in one form. Raises: Invalid."""
    listen = listeners.listen_address(balancer.listen_address)
    subnet = listeners.subnet_for(network, listen)
    config = listeners.checked_config(balancer.config, balancer.description, known=(_CHECK, *_NUMBERS))
    try:
        _check_numbers(config)
        backends = _checked_backends(balancer.backends, listen, subnet)
        _check_ports(balancer.ports, {b.name: b for b in backends})
    except ValueError as exc:
        raise Invalid("BAD_BALANCER", str(exc), about=str(listen)) from None
    return replace(balancer, listen_address=str(listen), config=config, backends=backends)


def _check_numbers(config: dict[str, str]) -> None:
    parse_bool(config.get(_CHECK) or "false")
    for key, (_, least, most) in _NUMBERS.items():
        text = config.get(key, str(least))
        if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
            raise ValueError(f'Invalid value for option "{key}": it must be between {least} and {most}')


def _checked_backends(
    backends: Iterable[Backend], listen: Address, subnet: IPv4Network | IPv6Network
) -> tuple[Backend, ...]:
    found = list[Backend]()
    for backend in backends:
        name = backend.name
        if not name or len(name) > 63 or not name.isprintable() or name in [b.name for b in found]:
            why = "is used twice" if name in [b.name for b in found] else "must have 1 to 63 characters"
            raise ValueError(f'The name of backend "{name[:64]}" {why}')
        try:
            if "%" in backend.target_address:
                raise ValueError("zone")
            target = ip_address(backend.target_address)
        except ValueError:
            raise ValueError(f'Invalid target address for backend "{name}"') from None
        if target.version != listen.version:
            raise ValueError(f'Cannot mix IP versions in listen address and backend "{name}" target address')
        if target not in subnet:
            raise ValueError(f'Target address is not within the network subnet for backend "{name}"')
        if backend.target_port:
            _check_port(backend)
        lines(backend.description)
        found.append(replace(backend, target_address=str(target)))
    if len(found) > _MOST:
        raise ValueError(f"At most {_MOST} backends are possible")
    return tuple(found)


def _check_port(backend: Backend) -> None:
    try:
        is_one = len(ports_of(backend.target_port)) == 1
    except ValueError as exc:
        raise ValueError(f'Invalid target port for backend "{backend.name}": {exc}') from None
    if not is_one:
        raise ValueError(f'Invalid target port for backend "{backend.name}": it must be one port')


def _check_ports(ports: Iterable[BalancerPort], backends: dict[str, Backend]) -> None:
    taken, found = set[tuple[str, int]](), list(ports)
    if len(found) > _MOST:
        raise ValueError(f"At most {_MOST} port specifications are possible")
    for number, port in enumerate(found):
        where = f"in port specification {number}"
        listeners.check_protocol(port.protocol, where)
        listeners.listen_ports(port.protocol, port.listen_port, where, taken)
        lines(port.description)
        if not port.target_backend:
            raise ValueError(f"Missing target backend {where}")
        for name in port.target_backend:
            if name not in backends:
                raise ValueError(f'Unknown backend "{name[:64]}" {where}')


def rules(balancer: NetworkLoadBalancer) -> Iterator[str]:
    """Yield the rules of its ports. A port whose backends are all away has none."""
    ip, listen = family(balancer.listen_address), balancer.listen_address
    living = {b.name: b for b in balancer.backends}
    for port in balancer.ports:
        targets = [living[name] for name in dict.fromkeys(port.target_backend) if name in living]
        head = f"{ip} daddr {listen} {port.protocol} dport"
        if targets and all(b.target_port for b in targets):
            ports = spans.port_set((p, p) for p in ports_of(port.listen_port))
            yield f"{head} {ports} dnat {ip} to {_spread(targets, 0)}"
        elif targets:
            for number in ports_of(port.listen_port):
                yield f"{head} {number} dnat {ip} to {_spread(targets, number)}"


def _spread(targets: list[Backend], asked: int) -> str:
    pairs = [f"{n} : {b.target_address} . {b.target_port or asked}" for n, b in enumerate(targets)]
    return f"numgen inc mod {len(targets)} map {{ {', '.join(pairs)} }}"
