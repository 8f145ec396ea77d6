"""Makes `podium` reachable as a command: one link, made by set-up and removed by purge.

Only the machine's own Podium has it; a throw-away one in another state folder must not take it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from core.settings import Settings
from deploy.privileges import ROOT

LINK = Path("/usr/local/bin/podium")
_DEFAULT = Settings.from_env({}).state_dir


def ensure_command(settings: Settings, link: Path = LINK) -> str:
    """Return how to call the command line: "podium", or its path where the name is taken."""
    target = ROOT / "bin" / "podium"
    if settings.state_dir != _DEFAULT:
        return str(target)
    with contextlib.suppress(OSError):  # a read-only /usr is no reason to fail: the path does as well
        if link.is_symlink() and not link.exists():
            link.unlink()  # it led into a checkout that is gone
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target)
    return "podium" if link.is_symlink() and link.resolve() == target.resolve() else str(target)


def remove_command(settings: Settings, link: Path = LINK) -> None:
    """Remove the link, and nothing that somebody else has put there."""
    if (
        settings.state_dir == _DEFAULT
        and link.is_symlink()
        and link.readlink().parts[-2:] == ("bin", "podium")
    ):
        link.unlink()
