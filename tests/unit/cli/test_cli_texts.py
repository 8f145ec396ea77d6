"""Sizes, times, YAML and bars, as the stock client writes them."""

import threading

import pytest

from cli.documents import dump, load, load_map, ordered
from cli.failure import CliError
from cli.progress import Meter, alive, bar, progress_of
from cli.texts import binary_size, duration, long_time, parse_time, short_time, size


@pytest.mark.parametrize(
    ("count", "decimal", "binary"),
    [(0, "0B", "0B"), (999, "999B", "999B"), (1500, "1.50kB", "1.46KiB"), (56988099, "56.99MB", "54.35MiB")],
)
def test_sizes_have_two_digits_and_a_unit(count: int, decimal: str, binary: str):
    assert (size(count), binary_size(count)) == (decimal, binary)


def test_times_are_short_in_tables_and_long_for_images():
    at = "2026-11-24T06:48:03.123456789Z"

    assert long_time(at) == "Nov 24, 2026 at 6:48am (UTC)"
    assert long_time("2026-11-04T12:05:00+00:00") == "Nov 4, 2026 at 12:05pm (UTC)"
    found = parse_time(at)
    assert found is not None and found.second == 3
    assert short_time(at).startswith("2026/11/2")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", ""])
def test_never_is_not_a_time(text: str):
    assert short_time(text, never="never") == "never"


def test_durations_are_short():
    assert (duration(0.13), duration(12.34)) == ("130 ms", "12.3 s")


def test_yaml_is_quoted_as_go_quotes_it():
    """So that `podium config show` and `lxc config show` print the same bytes."""
    value = {
        "a": "true",
        "b": "12",
        "c": "",
        "d": "x: y",
        "e": "2026-11-24T06:48:03Z",
        "f": "two\nlines",
        "g": True,
    }

    assert dump(value) == (
        'a: "true"\nb: "12"\nc: ""\nd: \'x: y\'\ne: 2026-11-24T06:48:03Z\nf: |-\n  two\n  lines\ng: true\n'
    )
    assert load(dump(value)) == value


def test_a_broken_document_is_named():
    with pytest.raises(CliError, match="line"):
        load("a: [")
    with pytest.raises(CliError, match="list"):
        load_map("- a")
    assert load_map("") == {}


def test_fields_keep_their_order_and_maps_are_sorted():
    found = ordered({"z": 1, "name": "x", "config": {"b": "1", "a": "2"}}, ("name", "config"))

    assert list(found) == ["name", "config", "z"]
    assert list(found["config"]) == ["a", "b"]


def test_a_bar_shows_its_share():
    assert bar(0.5) == "[############------------]  50%"
    assert bar(7) == "[########################] 100%"


def test_progress_comes_from_an_operations_metadata():
    operation = {"metadata": {"download_progress": "50%", "fds": {}}}

    assert progress_of(operation) == bar(0.5)
    words = {"metadata": {"download_progress": "rootfs: 7% (3.00MB/s)"}}
    assert progress_of(words) == f"rootfs: {bar(0.07)} (3.00MB/s)"
    assert progress_of({"metadata": None}) == ""


def test_a_long_operation_shows_what_it_says_of_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What is being done, how far it is, and since when; the line is wiped at the end."""
    asked = threading.Event()

    def look() -> dict[str, object]:
        asked.set()
        return {"metadata": {"download_progress": "40%"}}

    monkeypatch.setattr("cli.progress.is_painted", lambda quiet: True)
    with alive("Fetching the image", look, quiet=False):
        assert asked.wait(10)

    painted = capsys.readouterr().err
    assert f"Fetching the image: {bar(0.4)} (" in painted
    assert painted.endswith("\r\x1b[K")


def test_nothing_is_painted_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    with Meter("Sending", 10, quiet=False) as meter:
        meter.add(10)

    assert (meter.count, capsys.readouterr().err) == (10, "")
