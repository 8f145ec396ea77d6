"""Who runs what: argv and environment of a process that gives up what it does not need."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from core.settings import USER, Settings

ROOT = Path(__file__).resolve().parent.parent


def confined(argv: list[str], caps: tuple[str, ...] | None, group: str) -> list[str]:
    """Return *argv* run as user podium with just *caps*; as it is for None (root)."""
    if caps is None or os.geteuid():
        return argv
    prefix = ["setpriv", f"--reuid={USER}", f"--regid={group}", "--init-groups", "--no-new-privs"]
    if caps:
        wanted = ",".join(f"+{cap}" for cap in caps)
        prefix += [f"--inh-caps={wanted}", f"--ambient-caps={wanted}"]
    else:
        prefix += ["--inh-caps=-all", "--bounding-set=-all"]
    return [*prefix, *argv]


def interpreter(settings: Settings) -> tuple[str, str]:
    """Return the Python and the PYTHONPATH of the services: the checkout's, or those of its copy."""
    app = settings.state_dir / "app"
    if (app / "src").exists():
        return os.path.realpath(sys.executable), f"{app}/src:{app}/site-packages"
    return sys.executable, str(ROOT)


def python_environment(settings: Settings) -> dict[str, str]:
    """Return a small environment: where the code and the state are, and nothing of the caller's."""
    kept = {k: v for k, v in os.environ.items() if k.startswith("PODIUM_")}
    return {
        **kept,
        "PODIUM_DIR": str(settings.state_dir),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": interpreter(settings)[1],
        "PYTHONDONTWRITEBYTECODE": "1",
        "GRPC_ENABLE_FORK_SUPPORT": "false",
        "LANG": "C.UTF-8",
        # One heap, not one per thread, which core/process.py trims now and then. Not by glibc's thresholds:
        # setting one makes each chunk of a transfer an mmap of its own (measured: 15 % more CPU).
        "MALLOC_ARENA_MAX": "1",
    }
