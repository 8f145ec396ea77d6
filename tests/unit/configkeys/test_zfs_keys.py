"""The keys of zfs pools that are honoured, and those that are not."""

from __future__ import annotations

import pytest

from core.configkeys.storage import check_pool, check_volume, volume_defaults
from core.errors import Invalid


def test_keys_that_are_honoured_are_taken() -> None:
    config = {"size": "5GiB", "zfs.pool_name": "tank", "zfs.clone_copy": "false", "zfs.export": "false"}
    check_pool("zfs", {**config, "volume.zfs.use_refquota": "true", "volume.size": "1GiB"})


@pytest.mark.parametrize(
    ("key", "value"),
    [("zfs.clone_copy", "rebase"), ("volume.zfs.use_refquota", "x"), ("volume.zfs.blocksize", "4096")],
)
def test_what_is_not_honoured_is_refused(key: str, value: str) -> None:
    with pytest.raises(Invalid):
        check_pool("zfs", {key: value})


def test_a_volume_gets_no_key_that_only_its_pool_has() -> None:
    assert volume_defaults("zfs", {"volume.zfs.use_refquota": "true", "volume.size": "1GiB"}) == {
        "size": "1GiB"
    }
    with pytest.raises(Invalid):
        check_volume("zfs", {"zfs.use_refquota": "true"}, name="v")
