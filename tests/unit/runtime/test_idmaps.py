"""Host ids of instances: maps, what raw.idmap may say, and that no two instances share an id."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from core.records import Instance
from services.runtime.domain import idmaps
from services.runtime.domain.idmaps import PRIVILEGED, IdMap, Range, Wanted, id_map, parse_raw, wanted
from services.runtime.usecases.instances import ids
from services.runtime.usecases.instances.change import Update
from tests.unit.runtime.conftest import MEMBER, World

OWN = Instance(idmap_base=1_000_000, idmap_size=65536)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo", 'Invalid ID map line "foo"'),
        ("foo 1 2", 'Invalid ID map type "foo 1 2"'),
        ("both 1000-1005 1000", 'The ID map ranges are of different sizes "both 1000-1005 1000"'),
        ("both x 1", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("uid 0 0", "Host id 0 cannot be mapped; set security.privileged if that is what you want"),
        (
            "gid 1000001 5",
            "Host ids from 1000000 to 2147483647 are handed out to instances; map others",
        ),
        (
            "uid 999000-1000000 0-1000",
            "Host ids from 1000000 to 2147483647 are handed out to instances; map others",
        ),
        ("uid 4294967295 5", "Host ids end at 4294967294"),
    ],
)
def test_bad_lines_of_raw_idmap_are_refused(text: str, said: str) -> None:
    """The first four in LXD's words; the others would give away what belongs to root or to another guest."""
    with pytest.raises(Invalid) as caught:
        parse_raw(text)
    assert caught.value.message == said


def test_a_host_id_takes_the_place_of_the_one_of_the_range() -> None:
    found = id_map(1_000_000, 65536, "both 1000 1000")
    assert found.uids == (
        Range(0, 1_000_000, 1000),
        Range(1000, 1000, 1),
        Range(1001, 1_001_001, 64535),
    )
    assert found.owner(1000, 1000) == (1000, 1000)
    assert found.owner(1001, 0) == (1_001_001, 1_000_000)
    assert idmaps.to_inside(found.uids, 1000) == 1000
    assert idmaps.to_inside(found.uids, 1_001_000) == idmaps.NOBODY


@given(
    st.lists(
        st.tuples(st.integers(1, 60_000), st.integers(0, 70_000), st.integers(1, 3000)),
        min_size=1,
        max_size=8,
    )
)
def test_no_map_gives_an_id_twice(entries: list[tuple[int, int, int]]) -> None:
    """The kernel refuses maps whose ranges overlap, inside or on the host."""
    raw = "\n".join(f"uid {h}-{h + n - 1} {i}-{i + n - 1}" for h, i, n in entries)
    for side in ("inside", "host"):
        spans = sorted((getattr(r, side), r.count) for r in id_map(1_000_000, 65536, raw).uids)
        assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))


def test_a_record_without_ids_is_nobody_rather_than_root() -> None:
    """A way of writing records that forgets the ids must not give away the host's."""
    assert idmaps.of(Instance()) == IdMap()
    assert not idmaps.of(Instance()).is_privileged
    with pytest.raises(Invalid):
        IdMap().owner(0, 0)


def test_privileged_means_the_hosts_ids() -> None:
    record = dataclasses.replace(OWN, idmap_base=0, idmap_size=idmaps.EVERY)
    assert idmaps.of(record) is not None
    assert idmaps.of(record).is_privileged
    assert PRIVILEGED.owner(0, 1000) == (0, 1000)
    assert idmaps.shown(PRIVILEGED) == "[]"


def test_the_map_is_shown_as_lxd_shows_it() -> None:
    row = '{{"Isuid":{},"Isgid":{},"Hostid":1000000,"Nsid":0,"Maprange":65536}}'
    assert idmaps.shown(id_map(1_000_000)) == f"[{row.format('true', 'false')},{row.format('false', 'true')}]"


def test_keys_say_which_ids_are_wanted() -> None:
    config = {"security.idmap.size": "100000", "security.idmap.base": "2000000", "raw.idmap": "uid 5 5"}
    assert wanted(config) == Wanted(2_000_000, 100_000, "uid 5 5")
    assert wanted({"security.privileged": "true"}).privileged
    assert wanted({}) == Wanted()


@pytest.mark.parametrize(
    "config",
    [{"security.idmap.base": "5"}, {"security.idmap.size": "0"}, {"security.idmap.size": "4294967295"}],
)
def test_ids_outside_the_range_for_instances_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        wanted(config)


@pytest.mark.parametrize(
    ("want", "fits"),
    [
        (Wanted(), True),
        (Wanted(1_000_000), True),
        (Wanted(2_000_000), False),
        (Wanted(size=1000), False),
        (Wanted(raw="uid 5 5"), False),
        (Wanted(privileged=True), False),
    ],
)
def test_ids_change_only_when_keys_ask_for_others(want: Wanted, fits: bool) -> None:
    assert idmaps.fits(OWN, want) is fits


@pytest.mark.parametrize("base", [1, 5, 999_999, idmaps.LAST])
def test_ids_of_the_host_that_a_foreign_record_names_do_not_fit(base: int) -> None:
    """A note beside a volume may come from a stranger; its guest must not be users of this host."""
    assert not idmaps.fits(Instance(idmap_base=base, idmap_size=idmaps.SIZE), Wanted())


def test_a_long_range_takes_all_the_blocks_that_it_touches() -> None:
    assert idmaps.blocks(1_000_000, 65536) == [1_000_000]
    assert idmaps.blocks(1_000_000, 65537) == [1_000_000, 1_065_536]
    assert idmaps.blocks(1_010_000, 65536) == [1_000_000, 1_065_536]
    assert idmaps.blocks(0, idmaps.EVERY) == []
    assert idmaps.free_base([1_000_000, 1_131_072], 100_000) == 1_196_608


def test_a_base_that_somebody_has_is_refused() -> None:
    with pytest.raises(Invalid, match="another instance has ids"):
        idmaps.place(Wanted(1_010_000), [1_065_536])


async def test_keys_about_ids_take_effect_at_the_next_start(world: World) -> None:
    """Files hold ids as the guest sees them, so another map needs no shifting and no copy."""
    await world.made()
    store = world.host.store
    before = store.instance("default", "web").record
    update = Update(config={"security.idmap.size": "200000", "raw.idmap": "both 1000 1000"}, merge=True)
    await world.done(await world.changes.update("default", "web", update, expected_revision=0))
    assert idmaps.of(store.instance("default", "web").record) == idmaps.of(before)

    await world.changed("start")

    assert world.engine.plans[-1].idmap == id_map(1_000_000, 200_000, "both 1000 1000")
    assert len(store.idmaps.entries()) == 4


async def test_ids_go_back_when_they_are_not_needed_any_more(world: World) -> None:
    await world.made()
    store = world.host.store
    record = store.instance("default", "web").record
    privileged = await ids.ensure(store, MEMBER, record, Wanted(privileged=True))
    assert idmaps.of(privileged).is_privileged
    assert not store.idmaps.entries()
    await ids.ensure(store, MEMBER, record, Wanted())
    assert [entry.record.base for entry in store.idmaps.entries()] == [1_000_000]
