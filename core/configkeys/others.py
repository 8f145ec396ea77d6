"""Keys of the server."""

from __future__ import annotations

from ipaddress import ip_address

from core.configkeys import server
from core.configkeys.network import ALLOWS_RAW
from core.configkeys.project import ARCHITECTURES, parse_compression
from core.configkeys.schema import ConfigKey, Schema, Sentences, lines, one_of, text
from core.mirrors import parse_mirrors
from core.units import parse_expiry

_BAD = "cannot set '{name}' to '{value}'"


def parse_dns_address(value: str) -> tuple[str, int]:
    """Return address, empty for all, and port of "10.0.0.1:53", "[::]:53", ":53" or an address alone."""
    text = value.strip("[]") if value.count(":") > 1 and "]:" not in value else value
    host, colon, port = ("", ":", "53") if not text else text.rpartition(":")
    if text.count(":") > 1 and "]:" not in value:
        host, colon, port = text, ":", "53"
    elif not colon:
        host, port = port, "53"
    host = host.strip("[]")
    try:
        if host:
            ip_address(host)
    except ValueError:
        raise ValueError(f'Couldn\'t resolve "{host[:64]}"') from None
    if "%" in host or not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 1 << 16):
        raise ValueError(f'Invalid port "{port[:32]}"')
    return host, int(port)


SERVER = Schema(
    "server",
    (
        ConfigKey("core.https_address", text, "where the REST API listens"),
        ConfigKey("core.dns_address", parse_dns_address, "where zones are handed to their peers"),
        ConfigKey("core.trust_password", text, "lets clients add themselves"),
        ConfigKey("core.remote_token_expiry", parse_expiry, "life of trust tokens"),
        ConfigKey("core.metrics_authentication", server.boolean, "ask for a certificate", "true"),
        ConfigKey("images.auto_update_interval", server.integer, "hours", "6"),
        ConfigKey("images.auto_update_cached", server.boolean, "also cached ones", "true"),
        ConfigKey("images.remote_cache_expiry", server.integer, "days", "10"),
        ConfigKey("images.compression_algorithm", parse_compression, "of published images"),
        ConfigKey("images.default_architecture", one_of(*ARCHITECTURES), "of images by name"),
        ConfigKey("images.mirrors", parse_mirrors, "SERVER=MIRROR,MIRROR ..., asked before it"),
        ConfigKey("images.offline", server.boolean, "ask no other server for images", "false"),
        ConfigKey(
            ALLOWS_RAW, server.boolean, "let networks have raw.dnsmasq, which is root's power", "false"
        ),
        ConfigKey("backups.compression_algorithm", parse_compression, "of exports"),
        ConfigKey("core.shutdown_timeout", server.integer, "minutes; work goes on after a start anyway", "5"),
        *server.CLUSTER,
        *server.REFUSED,
    ),
    {"user.": lines},
    sentences=Sentences(f"{_BAD}: {{why}}", f"{_BAD}: unknown key"),
)
SECRETS = frozenset({"core.trust_password"})
