"""Values as people write them, and as attackers do."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import units


@pytest.mark.parametrize(
    ("text", "size"), [("1024", 1024), ("2GiB", 2 << 30), ("500MB", 500_000_000), ("1kB", 1000), ("7B", 7)]
)
def test_sizes_are_parsed(text: str, size: int) -> None:
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.5GiB", "1 GiB", "1gib", "9" * 19, "9" * 18 + "EiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("2", 2), ("0-3,7", frozenset({0, 1, 2, 3, 7})), ("1-1", frozenset({1})), ("0,2", frozenset({0, 2}))],
)
def test_cpu_counts_and_sets_are_parsed(text: str, cpus: object) -> None:
    assert units.parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["0", "3-1", "1,1", "0-2,1", "a", "-1", "1-", "", ",", "99999"])
def test_what_is_no_cpu_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_cpus(text)


def test_an_allowance_is_a_share_or_a_quota() -> None:
    assert units.parse_allowance("50%") == 50
    assert units.parse_allowance("25ms/100ms") == (25, 100)


@pytest.mark.parametrize("text", ["50", "25ms/0ms", "0ms/100ms", "-5%", "1ms/2000ms", "25ms/100ms\n"])
def test_what_is_no_allowance_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_allowance(text)


@pytest.mark.parametrize("text", ["0", "0%", "-5%", "%", "", "lots"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.check_memory(text)


@given(st.text())
def test_no_text_makes_a_parser_fail_otherwise(text: str) -> None:
    parsers = (units.parse_bytes, units.parse_bool, units.parse_int, units.parse_priority)
    for parse in (*parsers, units.check_memory, units.parse_cpus, units.parse_allowance):
        with contextlib.suppress(ValueError):
            parse(text)


def test_a_life_is_a_sum_of_parts() -> None:
    assert units.parse_expiry("1H 30M") == 5400


@pytest.mark.parametrize("text", ["", "1", "H", "1h", "-1d", "1d  2d", "1d\n", "9" * 6 + "y", "999y 999y"])
def test_what_is_no_life_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_expiry(text)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("5000", 5000), ("8bit", 8), ("100kbit", 100_000), ("10Mbit", 10_000_000), ("1Gibit", 1 << 30)],
)
def test_bit_rates_are_written_as_lxd_writes_them(text: str, bits: int) -> None:
    assert units.parse_bits(text) == bits


@pytest.mark.parametrize("text", ["", "10Mb", "10MB", "-1bit", "1.5Mbit", "fast"])
def test_what_is_no_bit_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a bit rate"):
        units.parse_bits(text)
