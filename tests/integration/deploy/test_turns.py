"""Two set-ups at once make one member, with one supervisor."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from deploy.turns import supervise, turn


def test_a_member_has_one_supervisor_until_that_ends(tmp_path: Path) -> None:
    place = supervise(tmp_path)
    assert place is not None
    assert supervise(tmp_path) is None

    os.close(place)

    again = supervise(tmp_path)
    assert again is not None
    os.close(again)


def test_who_waited_for_a_folder_that_was_purged_is_told(tmp_path: Path) -> None:
    """Else it would set up what nobody else can see any more."""
    state = tmp_path / "state"
    state.mkdir()

    def take() -> bool:
        with turn(state) as is_there:
            return is_there

    with ThreadPoolExecutor(1) as threads, turn(state):
        other = threads.submit(take)
        assert not wait([other], 0.1).done
        (state / "set-up.lock").unlink()
        state.rmdir()
    assert other.result(10) is False
