"""Which device nodes a running instance may open: the devices cgroup (v1), or the engine's program (v2)."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from core.errors import WrongState
from services.runtime.engine.config import DEVICES as ALWAYS
from services.runtime.kernel.cgroups import folders

_TIMEOUT_S = 10


class DeviceRules:
    """*instances* is where the engine keeps its instances."""

    def __init__(self, instances: Path, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._instances = instances
        self._v2 = (root / "cgroup.controllers").exists()
        self._root = root / "devices" / "podium"

    def allow(self, id: str, rule: str) -> None:
        """Repeatable. Raises: WrongState when the kernel refuses it."""
        if self._v2:
            self._by_engine(id, "allow", rule)
        elif rule not in ALWAYS:
            self._write(id, "allow", rule)

    def deny(self, id: str, rule: str) -> None:
        """Repeatable; what every instance may open stays allowed."""
        if rule in ALWAYS:
            return
        if self._v2:
            self._by_engine(id, "deny", rule)
        else:
            self._write(id, "deny", rule)

    def _write(self, id: str, verb: str, rule: str) -> None:
        """Write to the instance's cgroup and to those within: they had what it had when they were made."""
        for number, folder in enumerate(folders(self._root / id)):
            try:
                Path(folder, f"devices.{verb}").write_text(rule)
            except OSError as exc:
                if number == 0 and not isinstance(exc, FileNotFoundError):
                    raise _refused(rule, exc.strerror or "") from exc

    def _by_engine(self, id: str, verb: str, rule: str) -> None:
        argv = ["lxc-cgroup", "-n", id, "-P", str(self._instances), f"devices.{verb}", rule]
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
            )
            if done.returncode == 0:
                return
            raise _refused(rule, done.stderr.strip()[:200])
        raise _refused(rule, "the engine did not answer")


def _refused(rule: str, why: str) -> WrongState:
    return WrongState("DEVICE_REFUSED", f"The devices cgroup refused {rule!r}: {why}; restart the instance")
