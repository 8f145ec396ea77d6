"""What a guest's /proc/PID/net tells, whatever the guest made of it."""

from __future__ import annotations

from pathlib import Path

from services.runtime.kernel import guests

_HEAD = b"Inter-|   Receive                                                |  Transmit\n face |bytes\n"
_COUNTS = b": 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"


def _folder(path: Path, dev: bytes, v6: bytes = b"") -> Path:
    for name, data in (("dev", dev), ("fib_trie", b""), ("route", b"head\n"), ("if_inet6", v6)):
        (path / name).write_bytes(data)
    return path


def test_a_name_that_is_no_utf8_does_not_hide_the_others(tmp_path: Path) -> None:
    """Any guest may call an interface so; the list of all instances must not fail for it."""
    v6 = b"fe80000000000000021632fffee3ec6f 02 40 20 80     x\xff\n"
    found = guests.interfaces_of(_folder(tmp_path, _HEAD + b"x\xff" + _COUNTS + b"eth0" + _COUNTS, v6))
    assert [(i.name, i.counters["bytes_received"], len(i.addresses)) for i in found] == [
        ("x?", 1, 1),
        ("eth0", 1, 0),
    ]


def test_control_characters_do_not_reach_terminals(tmp_path: Path) -> None:
    names = (b"\x1b[2J", b"a\x1cb", "c\u2028d\x85".encode())
    folder = _folder(tmp_path, _HEAD + b"".join(name + _COUNTS for name in names))
    found = guests.interfaces_of(folder)
    assert [(one.name, one.counters) for one in found] == [
        (one.name, one.counters) for one in guests.counters_of(folder)
    ]
    assert [i.name for i in found] == ["?[2J", "a?b", "c???d??"]


def test_thousands_of_interfaces_cost_no_more_than_a_bound(tmp_path: Path) -> None:
    rows = b"".join(b"v%06d" % n + _COUNTS for n in range(50_000))
    found = guests.interfaces_of(_folder(tmp_path, _HEAD + rows))
    assert 1000 < len(found) < 10_000
    assert all(len(i.counters) == 8 for i in found)
