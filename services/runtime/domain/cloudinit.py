"""When cloud-init inside must take an instance for a new one and run again.

Source: LXD 5.0's needsNewInstanceID, and what it was seen to do: renaming, copying, new user data, vendor
data or network configuration, and NICs that come, go or are called otherwise.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import replace

from core.policy.expansion import Expanded
from core.records import InstanceObserved
from services.runtime.domain.expand import nics_of

INSTANCE_ID = "volatile.cloud-init.instance-id"
_DATA = ("vendor-data", "user-data", "network-config")
_KEYS = tuple(f"{prefix}.{name}" for prefix in ("cloud-init", "user") for name in _DATA)


def told(expanded: Expanded) -> str:
    """Return a digest of what cloud-init works by."""
    names = sorted(options.get("name") or device for device, options in nics_of(expanded.devices).items())
    values = [expanded.config.get(key, "") for key in _KEYS]
    return hashlib.sha256(json.dumps([values, names]).encode()).hexdigest()[:16]


def followed(observed: InstanceObserved, expanded: Expanded) -> InstanceObserved:
    """Return *observed* with an id of its own for what cloud-init works by now, whoever changed that.

    What was recorded before this was kept has no digest yet, and keeps its id this once.
    """
    now = told(expanded)
    if observed.cloud_init in ("", now):
        return replace(observed, cloud_init=now)
    return replace(observed, cloud_init=now, volatile={**observed.volatile, INSTANCE_ID: str(uuid.uuid4())})
