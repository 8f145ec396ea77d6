"""`python -m bench`: run the cases on both sides in turn, print the table, save Markdown and a plot."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.cases import CASES, Case
from bench.client import Side
from bench.host import INOTIFY, raised
from bench.image import ensure_image
from bench.peer import lxd_peer
from bench.plan import PREFIX, Plan
from bench.plot import draw
from bench.report import Results, document, table, verdict

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, a few minutes")
    parser.add_argument("--only", default="", help=f"some of: {','.join(c.name for c in CASES)}")
    parser.add_argument("--rounds", type=int, default=0, help="rounds per case")
    parser.add_argument("--peer-only", action="store_true", help="measure LXD alone")
    parser.add_argument("--podium-only", action="store_true", help="measure Podium alone")
    parser.add_argument(
        "--podium-dir", type=Path, default=Path("/var/lib/podium"), help="of a running Podium"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for latest.md and latest.png")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = Results()
    with scratch_folder() as scratch, raised(INOTIFY, 8192):
        plan = make_plan(options, scratch)
        with sides(options, scratch) as both, contextlib.suppress(KeyboardInterrupt):
            run_cases(chosen(options.only), both, plan, results)
    save(results, options.output, plan)
    print("\n" + table(results))
    return 1 if results.failures or has_failed_bar(results) else 0


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="podium-bench-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_plan(options: argparse.Namespace, scratch: Path) -> Plan:
    plan = Plan(ensure_image(), scratch)
    plan = plan.quick() if options.quick else plan
    return plan if not options.rounds else Plan(**{**plan.__dict__, "rounds": options.rounds})


def chosen(only: str) -> list[Case]:
    names = only.split(",") if only else [case.name for case in CASES]
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        sys.exit(f"No such case: {', '.join(sorted(unknown))}")
    return [case for case in CASES if case.name in names]


@contextlib.contextmanager
def sides(options: argparse.Namespace, scratch: Path) -> Iterator[list[Side]]:
    with contextlib.ExitStack() as stack:
        found = [] if options.peer_only else [podium(options.podium_dir, scratch)]
        if not options.podium_only:
            found.append(stack.enter_context(lxd_peer(scratch / "peer")))
        yield found


def podium(folder: Path, scratch: Path) -> Side:
    side = Side("podium", folder, scratch / "podium-client")
    if not side.socket.exists():
        sys.exit(f"No Podium answers in {folder}: run `make up` first, or say --peer-only")
    return side


def run_cases(cases: list[Case], both: list[Side], plan: Plan, results: Results) -> None:
    try:
        for case in cases:
            print(f"{case.name} ", end="", flush=True)
            run_case(case, both, plan, results)
            print(flush=True)
    finally:
        for side in both:
            side.delete_all(PREFIX)
            side.try_lxc("image", "delete", plan.alias)


def run_case(case: Case, both: list[Side], plan: Plan, results: Results) -> None:
    """Alternate the sides, and who begins; a side that fails once is left out of the case."""
    willing = [side for side in both if attempt_step(case, side, plan, results, prepare=True)]
    for turn in range(min(plan.rounds, case.most_rounds)):
        for side in willing if turn % 2 == 0 else list(reversed(willing)):
            if not attempt_step(case, side, plan, results, prepare=False):
                willing = [other for other in willing if other is not side]
    for side in both:
        side.delete_all(PREFIX)


def attempt_step(case: Case, side: Side, plan: Plan, results: Results, *, prepare: bool) -> bool:
    print("." if not prepare else ":", end="", flush=True)
    try:
        if prepare:
            case.prepare(side, plan)
        else:
            results.add(side.name, case.measure(side, plan))
    except (RuntimeError, OSError, subprocess.SubprocessError, KeyError) as exc:
        results.failures.append(f"{case.name} on {side.name}: {exc}")
        return False
    return True


def save(results: Results, folder: Path, plan: Plan) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    sizes = f"{plan.rounds} rounds, {plan.together} launches at once, {plan.running} running in the list"
    (folder / "latest.md").write_text(document(results, when=when, sizes=sizes))
    draw(results, folder / "latest.png")


def has_failed_bar(results: Results) -> bool:
    return any(verdict(row, results) == "FAIL" for case in CASES for row in case.rows)


if __name__ == "__main__":
    sys.exit(main())
