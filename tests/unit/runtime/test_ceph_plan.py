"""What the ceph driver asks of its tools, and how it reads their answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.configkeys.storage import check_pool
from core.errors import Invalid, WrongState
from services.runtime.storage import ceph_plan
from services.runtime.storage.ceph_plan import Place, Row, place_of

PLACE = Place("p", "osd")


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({}, Place("p", "p")),
        ({"source": "o"}, Place("p", "o")),
        (
            {"ceph.osd.pool_name": "o", "ceph.cluster_name": "c", "ceph.user.name": "u"},
            Place("p", "o", "c", "u"),
        ),
        ({"source": "o", "ceph.osd.pool_name": "o", "ceph.osd.pg_num": "8"}, Place("p", "o", groups=8)),
    ],
)
def test_a_source_is_an_osd_pool(config: dict[str, str], place: Place) -> None:
    assert place_of("p", config) == place


@pytest.mark.parametrize(
    "config",
    [
        {"source": "-f"},
        {"source": "a/b"},
        {"source": "a", "ceph.osd.pool_name": "b"},
        {"ceph.user.name": "a@b"},
        {"ceph.cluster_name": "../x"},
        {"ceph.osd.pg_num": "0"},
    ],
)
def test_names_that_tools_could_take_for_something_else_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        place_of("p", config)


def test_features_are_those_that_the_kernel_maps_and_copies_need() -> None:
    assert ceph_plan.features_of({}) == ["layering"]
    assert ceph_plan.features_of({"ceph.rbd.features": "exclusive-lock"}) == ["exclusive-lock", "layering"]
    with pytest.raises(Invalid, match="journaling"):
        ceph_plan.features_of({"ceph.rbd.features": "layering,journaling"})


@pytest.mark.parametrize("key", ["ceph.rbd.du", "ceph.osd.data_pool_name", "volume.block.mount_options"])
def test_keys_that_are_not_honoured_are_refused(key: str) -> None:
    with pytest.raises(Invalid):
        check_pool("ceph", {key: "true"})


@pytest.mark.parametrize(
    "name", ["containers/a", "custom/new:a-b", "containers/old:a", "gone/a", "root/new:0"]
)
@pytest.mark.parametrize("pool", ["p", "p.q", "whole.a.p"])
def test_names_go_there_and_back_for_their_pool_only(name: str, pool: str) -> None:
    image = ceph_plan.image_name(pool, name)
    assert ceph_plan.name_of(pool, image) == name
    assert ceph_plan.name_of("other", image) == ""


def test_what_is_no_volume_has_no_name() -> None:
    images = ["x", "podium.root.whole.0.p", "podium.gone.whole.a.p", "podium.vm.whole.a.p", "container_a"]
    assert ceph_plan.volumes_in("p", [*images, "podium.custom.whole.a.p"]) == {"custom/a"}


def test_a_mark_is_of_one_host_and_one_folder() -> None:
    marks = {ceph_plan.mark_of(Path(at), host) for at in ("/a", "/b") for host in ("1\n", "2\n")}
    assert len(marks) == 4


def test_sizes_are_whole_mebibytes_and_only_grow() -> None:
    assert ceph_plan.growth((1 << 20) + 1, 1 << 20) == 2 << 20
    assert ceph_plan.growth(1 << 20, 1 << 20) == 0
    with pytest.raises(Invalid, match="only grow"):
        ceph_plan.growth(1, 2 << 20)


def image(name: str) -> str:
    return ceph_plan.image_name("p", name)


def words(rows: list[Row]) -> list[list[str]]:
    return [step[5:] for step in ceph_plan.sweep(PLACE, rows)]


def test_what_nothing_needs_goes_up_to_what_it_was_cloned_from() -> None:
    origin, copy = image("gone/a"), image("gone/b")
    snapshot = f"osd/{origin}@podium-1"
    rows = [Row(origin), Row(origin, "podium-1", is_protected=True), Row(copy, parent=f"{origin}@podium-1")]
    assert words(rows) == [
        ["rm", "--no-progress", f"osd/{copy}"],
        ["snap", "unprotect", snapshot],
        ["snap", "rm", snapshot],
        ["rm", "--no-progress", f"osd/{origin}"],
    ]


def test_what_is_needed_or_not_ours_stays() -> None:
    origin = image("gone/a")
    needed = [Row(origin), Row(origin, "podium-1", is_protected=True)]
    assert words([*needed, Row(image("containers/b"), parent=f"{origin}@podium-1")]) == []
    theirs = [Row("x"), Row("x", "podium-1"), Row(origin), Row(origin, "by-hand"), Row(image("root/0"))]
    assert words([*theirs, Row("podium.gone.whole.a.other")]) == []


def test_answers_are_read() -> None:
    table = """[{"image":"a","id":"1","size":9,"format":2},
        {"image":"a","snapshot":"s","size":9,"format":2,"protected":"true"},
        {"image":"b","size":9,"parent":{"pool":"osd","image":"a","snapshot":"s"},"format":2},
        {"image":"c","size":9,"parent":{"pool":"other","image":"a","snapshot":"s"},"format":2}]"""
    rows = [Row("a"), Row("a", "s", is_protected=True), Row("b", parent="a@s"), Row("c")]
    assert ceph_plan.rows_in(table, "osd") == rows
    mapped = '{"pool":"osd","name":"a","snap":"-","device":"/dev/rbd0"}'
    for answer in (f"[{mapped}]", f'{{"0":{mapped}}}'):
        assert ceph_plan.devices_in(answer, "osd") == {"a": "/dev/rbd0"}
        assert ceph_plan.devices_in(answer, "other") == {}
    assert ceph_plan.devices_in("", "osd") == ceph_plan.metadata_in("") == {}
    df = '{"pools":[{"name":"osd","stats":{"stored":1,"bytes_used":3,"max_avail":4}}]}'
    assert ceph_plan.space_in(df, "osd") == (1, 5)


@pytest.mark.parametrize("answer", ["", "x", "{}", '[{"image":1}]', '[{"image":"a","parent":"b"}]', "[1]"])
def test_answers_of_another_shape_are_refused(answer: str) -> None:
    with pytest.raises(WrongState, match="cannot read"):
        ceph_plan.rows_in(answer, "osd")


@pytest.mark.parametrize("answer", ["", "/dev/../etc", "rbd0", "/dev/rbd0\n/dev/rbd1"])
def test_what_is_no_device_is_refused(answer: str) -> None:
    with pytest.raises(WrongState, match="cannot read"):
        ceph_plan.device_in(answer)


def test_no_step_shrinks_or_forces() -> None:
    steps = [
        ceph_plan.make_image(PLACE, "containers/a", 1, ["layering"]),
        *ceph_plan.make_osd_pool(PLACE, "m"),
    ]
    assert not {"--allow-shrink", "--force"} & {word for step in steps for word in step}
    assert steps[0][5:8] == ["create", "--size", f"{1 << 20}B"]


def test_what_a_host_lacks_is_named() -> None:
    assert ceph_plan.lacks({"rbd": "/usr/bin/rbd"}, has_module=True) == []
    assert ceph_plan.lacks({"ceph": None}, has_module=False) == [
        'Required tool "ceph" is missing',
        'the kernel module "rbd" is not loaded',
    ]
