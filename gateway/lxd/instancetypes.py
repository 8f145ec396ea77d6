"""Sizes of instances by name, as `lxc launch -t` gives them. Source: LXD 5.0, instance_instance_types.go."""

from __future__ import annotations

import math
import re

from core.errors import Invalid

_PART = re.compile(r"([cm])([0-9]{1,6}(?:\.[0-9]{1,6})?)")


def limits_of(text: str) -> dict[str, str]:
    """Return the limits that `c1-m0.5` (CPUs, GiB of memory) stands for. Raises: Invalid."""
    sizes: dict[str, float] = {}
    for part in text.split("-") if text else ():
        if not (found := _PART.fullmatch(part)):
            raise Invalid(
                "BAD_INSTANCE_TYPE",
                f"Provided instance type doesn't exist: {text[:40]}",
                about="instance_type",
            )
        sizes[found[1]] = float(found[2])
    return {**_cpu(sizes.get("c", 0)), **_memory(sizes.get("m", 0))}


def _cpu(count: float) -> dict[str, str]:
    if not count:
        return {}
    share = int(count / math.ceil(count) * 100)
    allowance = {"limits.cpu.allowance": f"{share}%"} if share < 100 else {}
    return {"limits.cpu": str(math.ceil(count)), **allowance}


def _memory(gib: float) -> dict[str, str]:
    return {"limits.memory": f"{int(gib * 1024)}MB"} if gib else {}
