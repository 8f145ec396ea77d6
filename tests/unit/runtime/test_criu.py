"""What is said where the state of processes cannot be kept, and how a host's CRIU is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.runtime.domain.criu import MISSING, Checked, not_live, obstacle
from services.runtime.kernel.criu import Criu

# What criu 3.17.1 says on Linux 6.18.
_OLD = """Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds
Error (criu/vdso.c:613): vdso: Failed to fill self vdso symtable
"""
_LATER = "Warn  (criu/kerndat.c:1): x\n(00.1)      1: Error (criu/a.c:2): y\n"


@pytest.mark.parametrize(
    ("checked", "words"),
    [
        (None, MISSING),
        (Checked(1, _OLD), "`criu check` says: vdso: Unexpected rt vDSO area bounds"),
        (Checked(1, _LATER), "`criu check` says: y"),
        (Checked(1, "Permission denied"), "`criu check` says: Permission denied"),
        (Checked(1, ""), "`criu check` says: nothing"),
        (Checked(1, "\x1b[31mError" + "x" * 5000), "`criu check` says: [31mError"),
        (Checked(None, "half"), "`criu check` didn't end"),
        (Checked(0, "Looks good.\n"), "liblxc can't restore an instance that has a console"),
    ],
)
def test_what_is_in_the_way_is_told_in_one_short_line(checked: Checked | None, words: str) -> None:
    told = obstacle(checked)
    assert words in told
    assert len(told) < 300 and told.isprintable()


def test_a_server_is_named_only_where_something_is_missing_on_it() -> None:
    assert not_live(MISSING, "source").endswith("CRIU isn't installed on the source server")
    assert not_live("CRIU doesn't work", "source").endswith("CRIU doesn't work")
    assert not_live(MISSING) == "Unable to perform container live migration. CRIU isn't installed"


def program(folder: Path, text: str) -> None:
    """Put a `criu` of this version into *folder*; it notes each time it is asked."""
    new = folder / "new"
    new.write_text(f'#!/bin/sh\necho "$1" >> {folder}/asked\n{text}\n')
    new.chmod(0o755)
    new.rename(folder / "criu")


async def test_a_host_without_criu_says_so_until_it_has_one(tmp_path: Path) -> None:
    criu = Criu(str(tmp_path))
    assert await criu.obstacle() == MISSING
    program(tmp_path, "echo Looks good.")
    assert "liblxc" in await criu.obstacle()


async def test_each_version_is_asked_once(tmp_path: Path) -> None:
    criu = Criu(f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "echo '(00.1) Error (criu/a.c:1): too old' >&2; exit 1")
    assert [await criu.obstacle() for _ in range(3)] == [await criu.obstacle()] * 3
    assert "too old" in await criu.obstacle()
    assert (tmp_path / "asked").read_text() == "check\n"
    program(tmp_path, "exit 0")
    assert "liblxc" in await criu.obstacle()
    assert (tmp_path / "asked").read_text() == "check\n" * 2


async def test_one_that_never_ends_is_ended_with_what_it_started(tmp_path: Path) -> None:
    criu = Criu(f"{tmp_path}:/usr/bin:/bin", patience_s=0.3)
    program(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; sleep 600")
    assert "didn't end" in await criu.obstacle()
    pid = int((tmp_path / "child").read_text())
    assert not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text()


async def test_one_that_says_too_much_or_cannot_be_run_is_no_crash(tmp_path: Path) -> None:
    criu = Criu(f"{tmp_path}:/usr/bin:/bin", patience_s=0.5)
    program(tmp_path, "yes Error | head -c 100000; exit 1")
    assert "says: Error" in await criu.obstacle() or "didn't end" in await criu.obstacle()
    (tmp_path / "new").write_bytes(b"\x7fELF, but no more")
    (tmp_path / "new").chmod(0o755)
    (tmp_path / "new").rename(tmp_path / "criu")
    assert "`criu check` says: Exec format error" in await criu.obstacle()
