"""Errors as they are told."""

from __future__ import annotations

import errno
import os

import pytest

from core.errors import Internal, Invalid, Unavailable, from_exception


def test_an_error_repeats_no_more_than_a_reader_would_read() -> None:
    """Names of any length come from clients, and errors become headers, records and lines of logs."""
    error = Invalid("BAD", "x" * 100_000, about="y" * 100_000)

    assert len(str(error)) == len(error.message) == len(error.about) == 1000


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_is_used_up_is_said(number: int) -> None:
    """It is no bug, and whoever asked can do something about it."""
    error = from_exception(OSError(number, os.strerror(number)))

    assert isinstance(error, Unavailable)
    assert "try again" in error.message or "raise" in error.message


def test_a_bug_is_not_taken_for_something_used_up() -> None:
    assert isinstance(from_exception(MemoryError()), Unavailable)
    assert isinstance(from_exception(KeyError("x")), Internal)
    assert isinstance(from_exception(OSError("no number")), Internal)
