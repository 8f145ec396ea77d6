"""Keys of the server."""

from __future__ import annotations

from core.configkeys.project import ARCHITECTURES, parse_compression
from core.configkeys.schema import ConfigKey, Schema, Sentences, lines, one_of, text
from core.units import parse_bool, parse_expiry, parse_int

_BAD = "cannot set '{name}' to '{value}'"
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
        ConfigKey("images.compression_algorithm", parse_compression, "of published images"),
        ConfigKey("images.default_architecture", one_of(*ARCHITECTURES), "of images by name"),
    ),
    {"user.": lines},
    sentences=Sentences(f"{_BAD}: {{why}}", f"{_BAD}: unknown key"),
)
SECRETS = frozenset({"core.trust_password"})
