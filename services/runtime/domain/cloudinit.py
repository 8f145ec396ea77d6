"""When cloud-init inside must take an instance for a new one and run again. Pure.

Source: LXD 5.0's needsNewInstanceID, and what it was seen to do: renaming, copying, new user data, vendor
data or network configuration, and NICs that come, go or are called otherwise.
"""

from __future__ import annotations

from core.policy.expansion import Expanded
from services.runtime.domain.expand import nics_of

INSTANCE_ID = "volatile.cloud-init.instance-id"
_DATA = ("vendor-data", "user-data", "network-config")
_KEYS = tuple(f"{prefix}.{name}" for prefix in ("cloud-init", "user") for name in _DATA)


def is_new(before: Expanded, after: Expanded) -> bool:
    """Say whether what changed is what cloud-init works by."""
    if any(before.config.get(key, "") != after.config.get(key, "") for key in _KEYS):
        return True
    return _interfaces(before) != _interfaces(after)


def _interfaces(expanded: Expanded) -> set[str]:
    return {options.get("name") or device for device, options in nics_of(expanded.devices).items()}
