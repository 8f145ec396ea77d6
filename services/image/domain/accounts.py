"""Who a program runs as, found in an image's own passwd and group. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.applications import is_variable
from core.errors import Invalid

_MOST_ID = 2**32 - 2


@dataclass(frozen=True)
class Account:
    uid: int = 0
    gid: int = 0
    home: str = "/"


def find(user: str, passwd: str, group: str) -> Account:
    """Return who *user* ("NAME", "UID", either with ":GROUP"; "" for root) is. Raises: Invalid."""
    name, _, wanted = user.partition(":")
    name = name or "0"
    row = next((row for row in _rows(passwd, 7) if name in (row[0], row[2])), None)
    if row is None and not _is_id(name):
        raise Invalid("NO_USER", f"The image's program runs as {name[:64]!r}, whom its passwd does not know")
    uid = int(row[2]) if row else int(name)
    home = row[5] if row and row[5].startswith("/") and is_variable("HOME", row[5]) else "/"
    gid = int(row[3]) if row else 0
    return Account(uid, _group(wanted, group) if wanted else gid, home)


def _group(name: str, group: str) -> int:
    row = next((row for row in _rows(group, 4) if name in (row[0], row[2])), None)
    if row is None and not _is_id(name):
        raise Invalid("NO_GROUP", f"The image's program runs in {name[:64]!r}, which its group does not know")
    return int(row[2]) if row else int(name)


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        row = line.split(":")
        if len(row) == columns and all(_is_id(id) for id in row[2 : 4 if columns == 7 else 3]):
            yield row


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MOST_ID
