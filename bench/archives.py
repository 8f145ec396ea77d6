"""Cases about whole instances as images and files."""

from __future__ import annotations

from bench.client import Side
from bench.lifecycle import ensure_alias
from bench.plan import PREFIX, Plan

_SOURCE, _BACK, _IMAGE = f"{PREFIX}packed", f"{PREFIX}unpacked", f"{PREFIX}published"


def make_source(side: Side, plan: Plan) -> None:
    """A stopped instance of the image, as publishing wants it."""
    ensure_alias(side, plan)
    side.lxc("init", plan.alias, _SOURCE)


def one_round(side: Side, plan: Plan) -> dict[str, float]:
    """Publish, export and import the same instance; MB/s are of the file that comes out."""
    published = side.timed("publish", _SOURCE, "--alias", _IMAGE)
    side.lxc("image", "delete", _IMAGE)
    file = plan.scratch / f"backup-{side.name}.tar.gz"
    exported = side.timed("export", _SOURCE, str(file), "--instance-only")
    imported = side.timed("import", str(file), _BACK)
    side.lxc("delete", _BACK)
    megabytes = file.stat().st_size / 1e6
    file.unlink()
    return {
        "publish": published * 1000,
        "backup_export": exported * 1000,
        "backup_rate": megabytes / exported,
        "backup_import": imported * 1000,
    }
