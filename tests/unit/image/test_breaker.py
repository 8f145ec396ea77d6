"""Servers that fail are left alone, and asked again."""

from __future__ import annotations

from services.image.sources.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_server_is_left_alone_after_three_failures_and_tried_again_later() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(2):
        breaker.failed("a")
    assert breaker.left(["a", "b"]) == ["a", "b"]

    breaker.failed("a")

    assert breaker.left(["a", "b"]) == ["b"]
    assert "3 times in a row" in breaker.why_not("a") and "15 s" in breaker.why_not("a")
    clock.now = 16
    assert breaker.left(["a", "b"]) == ["a", "b"]
    breaker.failed("a")  # that try failed too, so the next one is later
    clock.now = 40
    assert breaker.left(["a"]) == []
    clock.now = 50
    assert breaker.left(["a"]) == ["a"]


def test_one_answer_makes_good_for_all_failures() -> None:
    breaker = Breaker(Clock())
    for _ in range(2):
        breaker.failed("a")
    breaker.worked("a")
    breaker.failed("a")

    assert breaker.left(["a"]) == ["a"]


def test_wrong_bytes_are_enough_at_once() -> None:
    breaker = Breaker(Clock())
    breaker.failed("a", is_wrong=True)

    assert breaker.left(["a"]) == []


def test_the_wait_is_bounded_and_so_is_what_is_remembered() -> None:
    """Clients choose the servers, so neither may grow as they like."""
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(100):
        breaker.failed("a")
    clock.now = 301
    assert breaker.left(["a"]) == ["a"]
    for number in range(3000):
        breaker.failed(str(number))
    assert len(breaker._known) <= 1000
