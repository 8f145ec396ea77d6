"""Every verb that both clients have takes the flags and aliases of the stock client."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from cli.arguments import GLOBALS, Verb
from cli.verbs import VERBS

_OURS = (
    "shell",
    "image build",
    "completion",
    "up",
    "down",
    "purge",
    "rebuild",
    "explain",
    "undo",
    "diff",
    "logs",
    "top",
    "doctor",
    "image import-rootfs",
    "network map",
    "cluster join",
)
_OUR_NOUNS = ("admin", "network load-balancer", "network address-set")
# Their other flags are for copies between servers, for columns, for trust in servers that are no registries,
# and for an SSH server of the client's own.
_PARTLY = (
    "move",
    "image copy",
    "remote add",
    "storage volume copy",
    "storage volume move",
    "storage volume list",
    "file mount",
)
_SHARED = [v for v in VERBS if v.path not in (*_OURS, *_PARTLY) and not v.path.startswith(_OUR_NOUNS)]


@pytest.mark.parametrize("verb", _SHARED, ids=lambda verb: verb.path)
def test_flags_and_aliases_are_those_of_the_stock_client(verb: Verb, tmp_path: Path) -> None:
    """A script written for `lxc` must run when its first word is changed."""
    environment = {**os.environ, "LXD_CONF": str(tmp_path)}
    argv = ["lxc", *verb.path.split(), "--help"]
    text = subprocess.run(argv, capture_output=True, text=True, env=environment, check=True).stdout
    ours = {flag.name: flag.short for flag in (*verb.flags, *GLOBALS)}

    theirs = re.findall(r"^\s+(?:-(\w), |    )\s*--([\w-]+)", text.partition("Global Flags")[0], re.MULTILINE)
    aliases = re.search(r"Aliases:\n  (.*)", text)

    assert f"lxc {verb.path}" in text
    assert [name for short, name in theirs if ours.get(name) != short and (short or name not in ours)] == []
    assert set(aliases[1].split(", ") if aliases else ()) <= {verb.name, *verb.aliases}
