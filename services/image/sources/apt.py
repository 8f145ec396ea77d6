"""Which package mirrors this machine is configured to use. Podium never names one itself."""

from __future__ import annotations

import platform
import subprocess

from core.errors import Unsupported

_FORMAT = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_POCKETS = ("", "-updates", "-security")


def codename() -> str:
    """Return the release this host runs, for example "bookworm"."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def distribution() -> str:
    """Return what this host runs, for example "debian"."""
    return platform.freedesktop_os_release().get("ID", "")


def configured_lines() -> list[str]:
    """Return what apt reads, one `URI|suite|component` per index."""
    argv = ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.splitlines()


def source_list(lines: list[str], host: str, release: str) -> list[str]:
    """Return sources.list lines for *release*, taken from those this host has for its own release.

    Only the release itself and its updates are taken, so third parties on the host stay out.

    Raises: Unsupported when apt has no mirror of the host's own release.
    """
    found: dict[str, None] = {}
    for line in lines:
        uri, _, rest = line.partition("|")
        suite, _, component = rest.partition("|")
        pocket = suite.removeprefix(host)
        if suite.startswith(host) and pocket in _POCKETS and component == "main":
            found[f"deb {uri} {release}{pocket} main"] = None
    if not found:
        raise Unsupported(
            "NO_MIRROR",
            f"This host's apt has no mirror of {host or 'a Debian release'}; add one to its sources",
        )
    return list(found)
