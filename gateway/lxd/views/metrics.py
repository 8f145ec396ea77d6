"""Instance metrics as Prometheus reads them. Written by hand, since it must be fast at a thousand."""

from __future__ import annotations

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


def metrics_text(told: Any) -> str:
    """Return all samples of a GetInstanceMetricsResponse by family, under LXD's names."""
    families: dict[str, list[str]] = {}
    shapes = [_columns(shape, families) for shape in told.shapes]
    for instance in told.instances:
        own = f'name="{_escaped(instance.name)}",project="{_escaped(instance.project)}",type="container"}} '
        for (lines, begin), value in zip(shapes[instance.shape], instance.values, strict=True):
            lines.append(f"{begin}{own}{_number(value)}")
    text = []
    for name, samples in sorted(families.items()):
        kind = _KINDS.get(name, "counter" if name.endswith("_total") else "gauge")
        words = _HELP.get(name.partition("_")[0], name)
        text += [f"# HELP lxd_{name} {words}.", f"# TYPE lxd_{name} {kind}", *samples]
    return "\n".join([*text, "# EOF"]) + "\n"


def _columns(shape: Any, families: dict[str, list[str]]) -> list[tuple[list[str], str]]:
    """Return for each figure of *shape* the lines of its family, and how its own begin."""
    columns = []
    for head in shape.heads:
        pairs = zip(head.labels[::2], head.labels[1::2], strict=True)
        labels = "".join(f'{key}="{_escaped(value)}",' for key, value in pairs)
        columns.append((families.setdefault(head.name, []), f"lxd_{head.name}{{{labels}"))
    return columns


def _number(value: float) -> str:
    """Return whole numbers without a point, and all of their digits."""
    return str(int(value)) if value.is_integer() else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
