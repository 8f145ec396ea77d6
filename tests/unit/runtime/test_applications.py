"""Instances that are for one program: keys of their images, the engine's file, and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.applications import signal_number
from core.configkeys.instance import INSTANCE
from core.errors import Invalid
from services.runtime.domain import applications
from services.runtime.domain.applications import Application
from services.runtime.domain.idmaps import id_map
from services.runtime.engine import config as rendering
from services.runtime.ports import EnginePlan

_APP = Application(("/bin/app", "two words", "it's"), "/srv", 33, 44, {"A": "1"}, "SIGQUIT")


def test_keys_and_application_say_the_same() -> None:
    keys = applications.keys_of(_APP)

    for name, value in keys.items():
        if not name.startswith("environment."):
            INSTANCE.check({name: value})
    assert keys["environment.A"] == "1"
    assert applications.of(keys) == Application(_APP.command, "/srv", 33, 44, stop_signal="SIGQUIT")


def test_without_a_command_there_is_no_application() -> None:
    keys = applications.keys_of(Application(()))

    assert "oci.entrypoint" not in keys and applications.of(keys) is None
    with pytest.raises(Invalid, match="names no command"):
        applications.need_command(keys)


def test_the_engine_is_given_words_as_they_are() -> None:
    """In its file they would be split by rules that no quoting covers."""
    plan = EnginePlan("id", "app", Path("/r"), id_map(1_000_000), application=_APP)

    text = rendering.render(plan, Path("/f"), seccomp=Path("/s"), hook=Path("/h/post-stop"), v2=True)

    assert rendering.command(plan) == ["--", "/dev/.init", "--", "/bin/app", "two words", "it's"]
    for line in ("lxc.init.uid = 33", "lxc.init.gid = 44", "lxc.init.cwd = /srv", "lxc.signal.halt = 3"):
        assert line in text.splitlines()
    assert "lxc.mount.entry = /h/init dev/.init none bind,create=file,ro 0 0" in text
    assert "two words" not in text


@pytest.mark.parametrize(
    ("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("SIGRTMIN", 34)]
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "SIG", "0", "99", "SIGNOT", "SIGRTMIN+40", "SIG_DFL", "_IGN", "SIGTERM\n1"]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Unknown signal"):
        signal_number(text)
