"""Run the tests in two lanes at once: most of a test is waiting, and each lane has Podiums of its own.

    python -m tools.lanes            both lanes, side by side
    python -m tools.lanes --failed   what failed in them the last time, one lane after the other

Lanes share the host and nothing else. What a lane says is shown as a whole when it ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_CACHE = Path(".pytest_cache")
_ENDED = _CACHE / "lanes.json"
_LOOK_S = 0.5


@dataclass(frozen=True)
class Lane:
    """A part of the tests, by what pytest is told to collect."""

    name: str
    collects: tuple[str, ...]

    def command(self, *more: str) -> list[str]:
        # A cache of its own: pytest notes there what failed, and the lane that ends last would win.
        cache = ("-o", f"cache_dir={_CACHE / self.name}")
        return [sys.executable, "-m", "pytest", *cache, *more, *self.collects]

    @property
    def log(self) -> Path:
        return _CACHE / f"{self.name}.log"


# The second has all that is not in the first, so that no folder of tests is forgotten.
LANES = (Lane("faults", ("tests/faults",)), Lane("others", ("tests", "--ignore=tests/faults")))


def run_all(*more: str) -> dict[str, int]:
    """Run the lanes side by side and return the exit code of each."""
    running = dict[Lane, subprocess.Popen[bytes]]()
    for lane in LANES:
        with lane.log.open("wb") as log:
            running[lane] = subprocess.Popen(lane.command(*more), stdout=log, stderr=subprocess.STDOUT)
    ended = dict[str, int]()
    try:
        while len(ended) < len(running):
            time.sleep(_LOOK_S)
            for lane in (lane for lane in LANES if lane.name not in ended):
                if (code := running[lane].poll()) is not None:
                    ended[lane.name] = code
                    print(f"\n--- tests: {lane.name}\n{lane.log.read_text(errors='replace')}", flush=True)
    finally:
        for process in running.values():  # who interrupts us interrupts them; they take their Podiums away
            process.wait()
    return ended


def run_failed(ended: dict[str, int]) -> dict[str, int]:
    """Run what failed again, alone. A lane that broke without naming a test fails again."""
    again = ("--last-failed", "--last-failed-no-failures", "none")
    failed = [lane for lane in LANES if ended.get(lane.name, 1)]
    return {lane.name: subprocess.run(lane.command(*again), check=False).returncode for lane in failed}


def main(argv: list[str]) -> int:
    _CACHE.mkdir(exist_ok=True)
    if argv[:1] == ["--failed"]:
        return int(any(run_failed(json.loads(_ENDED.read_text())).values()))
    _ENDED.unlink(missing_ok=True)
    ended = run_all(*argv)
    _ENDED.write_text(json.dumps(ended))
    return int(any(ended.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
