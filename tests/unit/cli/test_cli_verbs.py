"""The table of verbs keeps its promises: handlers exist, names are unique, the start is light."""

import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from cli.arguments import GLOBALS, Verb
from cli.help import page
from cli.verbs import GROUPS, VERBS

ROOT = Path(__file__).parents[3]
HEAVY = (
    "grpc",
    "aiohttp",
    "yaml",
    "asyncio",
    "http.client",
    "ssl",
    "dataclasses",
    "subprocess",
    "core",
    "deploy",
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.path)
def test_every_verb_has_what_carries_it_out(verb: Verb):
    """A typing error in the table would show only to whoever uses that verb."""
    module, _, name = verb.runs.partition(":")

    assert callable(getattr(import_module(f"cli.{module}"), name))


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.path)
def test_the_flags_of_a_verb_do_not_clash(verb: Verb):
    flags = (*verb.flags, *GLOBALS)
    names = [flag.name for flag in flags]
    shorts = [flag.short for flag in flags if flag.short]

    assert len(set(names)) == len(names)
    assert len(set(shorts)) == len(shorts)


def test_every_path_is_there_once_and_in_a_known_group():
    paths = [verb.path for verb in VERBS]

    assert len(set(paths)) == len(paths)
    assert {verb.group for verb in VERBS} == set(GROUPS)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.path)
def test_help_names_every_flag(verb: Verb):
    text = page(verb.path, verb)

    assert all(f"--{flag.name}" in text for flag in verb.flags)
    assert verb.about in text


@pytest.mark.parametrize("path", GROUPS)
def test_help_of_a_group_names_its_members(path: str):
    text = page(path, None)

    assert all(verb.name in text for verb in VERBS if verb.group == path)


@pytest.mark.parametrize("line", ["--help", "list --help", "list --no-such-flag"])
def test_nothing_heavy_is_imported_before_a_verb_runs(line: str):
    """grpc alone takes longer than the 100 ms the whole start may take."""
    code = (
        "import sys; from cli.main import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stderr.splitlines()[-1] == "[]"


def test_a_list_needs_no_more_than_json_and_http():
    code = (
        "import sys; from cli.main import main; main(['list']); "
        "print([m for m in ('grpc', 'aiohttp', 'yaml', 'asyncio', 'core') if m in sys.modules])"
    )
    environment = {"PODIUM_DIR": "/nonexistent", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )

    assert done.stdout == "[]\n"


def test_the_command_line_starts_fast():
    """20 ms of processor time, whatever else this machine does; the best of five counts."""
    took_s = []
    for _ in range(5):
        began = _used_by_children_s()
        subprocess.run([ROOT / "bin" / "podium", "--version"], check=True, stdout=subprocess.DEVNULL)
        took_s.append(_used_by_children_s() - began)

    assert min(took_s) < 0.1


def _used_by_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_before_setup_the_command_says_what_to_do(tmp_path: Path):
    """A fresh clone has no Python environment yet."""
    command = tmp_path / "bin" / "podium"
    command.parent.mkdir()
    command.write_bytes((ROOT / "bin" / "podium").read_bytes())
    command.chmod(0o755)

    done = subprocess.run([command, "list"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"Try: make -C {tmp_path} up"
