"""Instance metrics as Prometheus reads them. Written by hand, since it must be fast at a thousand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_KINDS = {"procs_total": "gauge"}
_HELP = {
    "cpu": "Processor time used, in seconds",
    "healthy": "Whether its health check succeeds",
    "restarts": "Restarts in a row after it ended by itself",
    "disk": "Reads and writes of block devices",
    "filesystem": "Space of the file system",
    "memory": "Memory, as the kernel accounts for it",
    "network": "Traffic as the instance sees it",
    "procs": "Number of processes",
}


def metrics_text(instances: Iterable[Any]) -> str:
    """Return all samples by family, under LXD's names."""
    families: dict[str, list[str]] = {}
    for instance in instances:
        own = f'name="{_escaped(instance.name)}",project="{_escaped(instance.project)}",type="container"'
        for sample in instance.samples:
            pairs = zip(sample.labels[::2], sample.labels[1::2], strict=True)
            labels = "".join(f'{key}="{_escaped(value)}",' for key, value in pairs) + own
            line = f"lxd_{sample.name}{{{labels}}} {_number(sample.value)}"
            families.setdefault(sample.name, []).append(line)
    lines = []
    for name, samples in sorted(families.items()):
        kind = _KINDS.get(name, "counter" if name.endswith("_total") else "gauge")
        words = _HELP.get(name.partition("_")[0], name)
        lines += [f"# HELP lxd_{name} {words}.", f"# TYPE lxd_{name} {kind}", *samples]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _number(value: float) -> str:
    """Return whole numbers without a point, and all of their digits."""
    return str(int(value)) if value.is_integer() else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
