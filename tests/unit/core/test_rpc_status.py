"""Errors as gRPC carries them."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from core.rpc.status import _unpack, to_status


@pytest.mark.parametrize("text", ["x" * 10_000, "ü" * 10_000, "\U0001f300" * 10_000])
def test_an_error_that_quotes_a_lot_still_arrives(text: str) -> None:
    """Metadata beyond 8 KiB is dropped; who then finds no detail can only say that something failed."""
    status = to_status(Invalid("BAD_NAME", f"The name {text!r} is too long", about=text))

    (detail,) = [value for key, value in status.trailing_metadata if key == "grpc-status-details-bin"]
    assert len(detail) * 4 / 3 + len(status.details.encode()) * 3 < 8000
    unpacked = _unpack(detail)
    assert unpacked is not None
    assert unpacked.message.startswith("The name ")
