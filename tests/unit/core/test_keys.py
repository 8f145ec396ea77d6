"""The key tree."""

from __future__ import annotations

from core.state import keys


def test_nothing_lies_between_the_outbox_and_the_operations() -> None:
    """One watch covers both, and all between them would wake every gateway for nothing."""
    prefixes = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}

    between = [p for p in prefixes if keys.EVENTS < p < keys.OPERATIONS]

    assert between == []
