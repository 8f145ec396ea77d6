"""Programs in sealed memory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from services.runtime.kernel.sealed import SealedPrograms


def _program(path: Path, source: str) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(Path(source).read_bytes())
    path.chmod(0o755)


def test_a_sealed_copy_runs_and_cannot_be_written(tmp_path: Path) -> None:
    """Writing to the program behind a guest's /proc/self/exe is CVE-2019-5736."""
    programs = SealedPrograms()
    path = programs.path("true")

    assert subprocess.run(["true"], executable=path, check=False).returncode == 0
    with pytest.raises(OSError):
        Path(path).write_bytes(b"other")
    programs.close()


def test_an_upgraded_program_is_copied_again(tmp_path: Path) -> None:
    programs, program = SealedPrograms(), tmp_path / "program"
    _program(program, "/bin/true")
    assert subprocess.run(["p"], executable=programs.path(str(program)), check=False).returncode == 0

    _program(program, "/bin/false")

    assert subprocess.run(["p"], executable=programs.path(str(program)), check=False).returncode == 1
    before = len(os.listdir("/proc/self/fd"))
    programs.path(str(program))
    assert len(os.listdir("/proc/self/fd")) == before
    programs.close()


def test_a_program_that_is_not_there_keeps_its_name() -> None:
    """Then starting it says what is wrong."""
    assert SealedPrograms().path("no-such-program") == "no-such-program"
