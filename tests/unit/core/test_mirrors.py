"""The server key images.mirrors."""

from __future__ import annotations

import pytest

from core.mirrors import parse_mirrors


def test_each_server_has_its_mirrors_in_order() -> None:
    text = "https://a.example/=https://m1.example/x/,http://m2.example  https://b.example=https://m1.example"

    assert parse_mirrors(text) == {
        "https://a.example": ("https://m1.example/x", "http://m2.example"),
        "https://b.example": ("https://m1.example",),
    }
    assert parse_mirrors("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example",
        "https://a.example=",
        "=https://m.example",
        "a.example=https://m.example",
        "https://a.example=file:///etc",
        "https://a.example=" + ",".join(["https://m.example"] * 17),
    ],
)
def test_what_is_no_list_of_mirrors_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SERVER=MIRROR"):
        parse_mirrors(text)
