"""Errors as they are told."""

from __future__ import annotations

from core.errors import Invalid


def test_an_error_repeats_no_more_than_a_reader_would_read() -> None:
    """Names of any length come from clients, and errors become headers, records and lines of logs."""
    error = Invalid("BAD", "x" * 100_000, about="y" * 100_000)

    assert len(str(error)) == len(error.message) == len(error.about) == 1000
