"""Makes `podium` reachable as a command: one link, made by set-up and removed by purge.

Only the machine's own Podium has it; a throw-away one in another state folder must not take it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from core.settings import Settings
from deploy.privileges import ROOT

LINK = Path("/usr/local/bin/podium")
_LAUNCHER = """\
#!/bin/sh
# Who may enter the checkout uses it; others of the group use the copy that the services run.
[ -x '{checkout}' ] && exec '{checkout}' "$@"
PYTHONPATH='{app}/src:{app}/site-packages' exec '{python}' -P '{app}/src/cli/__main__.py' "$@"
"""
_DEFAULT = Settings.from_env({}).state_dir


def ensure_command(settings: Settings, link: Path = LINK) -> str:
    """Return how to call the command line: "podium", or its path where the name is taken."""
    checkout = ROOT / "bin" / "podium"
    if settings.state_dir != _DEFAULT:
        return str(checkout)
    copy = settings.state_dir / "app" / "podium"
    target = copy if copy.exists() else checkout
    with contextlib.suppress(OSError):  # a read-only /usr is no reason to fail: the path does as well
        if link.is_symlink() and (not link.exists() or link.resolve() == checkout.resolve()):
            link.unlink()  # it led into a checkout that is gone, or past a copy that more may use
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target)
    return "podium" if link.is_symlink() and link.resolve() == target.resolve() else str(target)


def write_launcher(app: Path, python: str) -> None:
    """Let users whom a private checkout is closed to run the command line from its copy *app*."""
    file = app / "podium"
    file.write_text(_LAUNCHER.format(checkout=ROOT / "bin" / "podium", app=app, python=python))
    file.chmod(0o755)


def remove_command(settings: Settings, link: Path = LINK) -> None:
    """Remove the link, and nothing that somebody else has put there."""
    if (
        settings.state_dir == _DEFAULT
        and link.is_symlink()
        and link.readlink().parts[-2:] in (("bin", "podium"), ("app", "podium"))
    ):
        link.unlink()
