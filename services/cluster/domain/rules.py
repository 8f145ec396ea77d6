"""What may be changed, in words; pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_interface

import orjson

from core.configkeys import others
from core.configkeys.devices.disk import is_root
from core.configkeys.devices.registry import check_devices
from core.configkeys.devices.registry import without_empty as without_empty_options
from core.configkeys.instance import PROFILE, check_profile
from core.configkeys.schema import ConfigKey, without_empty
from core.errors import Forbidden, Invalid
from core.names import in_project
from core.records import Instance, Network, Profile

_MAX_DEVICES = 64


def reference(kind: str, project: str, name: str) -> str:
    """Return how used_by names an object."""
    return in_project(f"{kind}/{name}", project)


def profile_users(profile: Profile, instances: Iterable[Instance]) -> list[str]:
    """Return which of *instances*, all of projects that use the profiles of its project, use this one."""
    return [reference("instances", i.project, i.name) for i in instances if profile.name in i.profiles]


def root_disk(devices: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    """Return the name of the root disk and its pool, "" for none."""
    for name, options in devices.items():
        if is_root(options):
            return name, options.get("pool", "")
    return "", ""


def checked_profile(profile: Profile, networks: Mapping[str, Network] | None = None) -> Profile:
    """Return *profile* without empty keys. *networks*: managed ones by name. Raises: Invalid."""
    config = without_empty(profile.config)
    check_profile(config)
    PROFILE.check_known(profile.config)
    if len(profile.devices) > _MAX_DEVICES:
        raise Invalid("TOO_MANY_DEVICES", f"At most {_MAX_DEVICES} devices are allowed")
    types = None if networks is None else {name: network.type for name, network in networks.items()}
    check_devices(profile.devices, types)
    for name, options in profile.devices.items():
        if options.get("type") == "nic" and (network := (networks or {}).get(options.get("network", ""))):
            _check_addresses(name, options, network)
    devices = without_empty_options(profile.devices)
    return Profile(profile.project, profile.name, profile.description, config, devices)


def _check_addresses(device: str, options: Mapping[str, str], network: Network) -> None:
    """Raises: Invalid when a static address is none of the network's."""
    for key in ("ipv4.address", "ipv6.address"):
        address, subnet = options.get(key, ""), network.config.get(key, "")
        if address in ("", "none") or subnet in ("", "none"):
            continue
        if ip_address(address) not in ip_interface(subnet).network:
            why = f'Device IP address "{address}" not within network "{network.name}" subnet'
            raise Invalid("OUTSIDE", f'Device validation failed for "{device}": {why}', about=device)


def protect_default(kind: str, name: str, verb: str) -> None:
    if name == "default":
        raise Forbidden("DEFAULT_STAYS", f'The "default" {kind} cannot be {verb}', about=name)


def hash_password(password: str, salt: bytes | None = None) -> str:
    salt = salt or os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
    return f"scrypt:{salt.hex()}:{digest.hex()}"


def password_matches(password: str, stored: str) -> bool:
    _, salt, _ = stored.split(":")
    return hmac.compare_digest(hash_password(password, bytes.fromhex(salt)), stored)


def token_secret(text: str) -> str:
    """Return the secret inside a trust token, or an empty string when *text* is none."""
    try:
        token = orjson.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return ""
    secret = token.get("secret", "") if isinstance(token, dict) else ""
    return secret if isinstance(secret, str) else ""


def shown_config(config: Mapping[str, str]) -> dict[str, str]:
    return {k: "true" if k in others.SECRETS else v for k, v in config.items()}


def new_server_config(
    old: Mapping[str, str], new: Mapping[str, str], *, unchanged: Iterable[str], merge: bool
) -> dict[str, str]:
    """Return the configuration to store. Secrets are hashed; empty and default values are dropped."""
    others.SERVER.check_known(new)
    others.SERVER.check({k: v for k, v in new.items() if v})
    config = dict(old) if merge else {k: old[k] for k in unchanged if k in old}
    for name, value in new.items():
        config[name] = hash_password(value) if value and name in others.SECRETS else value
    return {k: v for k, v in config.items() if v and v != others.SERVER.keys.get(k, _NO_KEY).default}


_NO_KEY = ConfigKey("")
