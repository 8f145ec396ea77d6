"""Cases about moving bytes: images in and out, files into and out of an instance."""

from __future__ import annotations

import os
import shutil
import time

from bench.client import Side
from bench.lifecycle import ensure_alias
from bench.plan import PREFIX, Plan


def import_and_launch(side: Side, plan: Plan) -> dict[str, float]:
    """Import the image anew, launch from it at once, export it."""
    side.delete_all(PREFIX)
    side.try_lxc("image", "delete", plan.alias)
    imported = side.timed("image", "import", str(plan.image), "--alias", plan.alias)
    launched = side.timed("launch", plan.alias, f"{PREFIX}first")
    exported = export_s(side, plan)
    side.delete_all(PREFIX)
    megabytes = plan.image.stat().st_size / 1e6
    return {
        "first_launch": launched * 1000,
        "import_launch": (imported + launched) * 1000,
        "image_import": megabytes / imported,
        "image_export": megabytes / exported,
    }


def export_s(side: Side, plan: Plan) -> float:
    target = plan.scratch / f"export-{side.name}"
    target.mkdir()
    try:
        return side.timed("image", "export", plan.alias, f"{target}/")
    finally:
        shutil.rmtree(target)


def start_one(side: Side, plan: Plan) -> None:
    ensure_alias(side, plan)
    side.lxc("launch", plan.alias, f"{PREFIX}files")


def push_and_pull(side: Side, plan: Plan) -> dict[str, float]:
    """Send random bytes in, fetch them back, and check that they are the same."""
    sent, fetched = plan.scratch / "sent", plan.scratch / f"fetched-{side.name}"
    if not sent.exists():
        sent.write_bytes(os.urandom(plan.megabytes * 1_000_000))
    inside = f"{PREFIX}files/root/sent"
    pushed = side.timed("file", "push", str(sent), inside)
    pulled = side.timed("file", "pull", inside, str(fetched))
    if fetched.read_bytes() != sent.read_bytes():
        raise RuntimeError(f"{side.name}: the file that came back is not the one sent")
    return {"push": plan.megabytes / pushed, "pull": plan.megabytes / pulled}


def exec_gibibyte(side: Side, plan: Plan) -> dict[str, float]:
    """Let a command write 1 GiB to the client, which throws it away."""
    begun = time.perf_counter()
    (client,) = side.start_many(("exec", f"{PREFIX}files", "--", "head", "-c", "1G", "/dev/zero"))
    _, said = client.communicate(timeout=300)
    if client.returncode:
        raise RuntimeError(f"{side.name}: lxc exec: {said.decode().strip()}")
    return {"exec_gibibyte": (time.perf_counter() - begun) * 1000}
