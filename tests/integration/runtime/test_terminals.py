"""The terminal that a program of ours makes inside belongs to who uses it."""

from __future__ import annotations

import os
import pty
import stat

import pytest

from services.runtime.kernel.terminals import own_terminal

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def test_the_terminal_of_a_program_is_given_away_and_keeps_group_and_mode() -> None:
    master, slave = pty.openpty()
    try:
        before = os.fstat(slave)

        assert own_terminal(os.getpid(), 1234, lambda: True)

        after = os.fstat(slave)
        assert (after.st_uid, after.st_gid) == (1234, before.st_gid)
        assert stat.S_IMODE(after.st_mode) == stat.S_IMODE(before.st_mode)
    finally:
        os.close(master)
        os.close(slave)


def test_a_program_that_has_ended_is_not_waited_for() -> None:
    assert not own_terminal(os.getpid(), 1234, lambda: False)
