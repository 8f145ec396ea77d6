"""What clients are told that they may ask for."""

from __future__ import annotations

from pathlib import Path

from gateway.lxd import extensions
from gateway.lxd.extensions import LATER, LEFT_OUT, LXD, NAMES, ONLY_ANSWERED, OWN, by_name
from gateway.lxd.handlers.volumes import root_size

_PAGE = Path(__file__).resolve().parents[3] / "docs" / "api-extensions.md"


def test_no_name_comes_twice() -> None:
    told = [name for reasons in (LEFT_OUT, ONLY_ANSWERED) for _, names in reasons for name in names.split()]
    for names in (LXD, NAMES, told):
        assert len(set(names)) == len(names)


def test_the_order_is_lxds_and_ours_come_last() -> None:
    places = [LXD.index(name) for name in NAMES if name in LXD]
    assert places == sorted(places)
    assert NAMES[len(places) :] == (*LATER, *OWN)
    assert LXD[0] == "storage_zfs_remove_snapshots" and LXD[-1] == "cpu_hotplug" and len(LXD) == 318


def test_what_is_left_out_has_a_reason_and_is_one_of_lxds() -> None:
    left_out, answered = by_name(LEFT_OUT), by_name(ONLY_ANSWERED)
    assert set(LXD) - set(NAMES) == set(left_out) and all(left_out.values())
    assert set(answered) <= set(NAMES) and all(answered.values())


def test_what_the_stock_client_would_send_in_vain_is_left_out() -> None:
    """It asks for virtual machines, or for members by name, where a server says that it knows them."""
    for name in ("virtual-machines", "custom_block_volumes", "network_sriov", "migration_stateful"):
        assert name not in NAMES
    assert "storage_buckets" not in NAMES and "candid_authentication" not in NAMES


def test_the_page_is_current() -> None:
    """`make docs` writes it."""
    assert _PAGE.read_text() == extensions.page()


def test_a_root_disk_has_the_size_that_its_device_gives_it() -> None:
    assert root_size({"root": {"size": "2GiB"}}) == 2 << 30
    assert root_size({"root": {"pool": "default"}}) == root_size({}) == 0
