"""What LXD and Podium tell each other before they migrate."""

from __future__ import annotations

import pytest

from core.errors import Invalid, PodiumError, Unsupported
from protos.podium.migration.v1 import migration_pb2 as pb
from services.runtime.domain.arrivals import ArrivedEntry
from services.runtime.domain.offers import FEATURES, Answer, Offer, missing, offer_from, wanted_of
from services.runtime.servicer.headers import answer_of, header_of_answer, header_of_offer, offer_of

# As LXD 5.0.2 offered a custom volume with the snapshot s0, on btrfs.
OF_LXD = bytes.fromhex(
    "0801220273302a100a0273302000300038004000480050004208080110011801200162060801100118016801"
)
SNAPSHOT = ArrivedEntry(
    "s1",
    "",
    architecture="x86_64",
    profiles=("default",),
    config={"user.a": "1"},
    devices={"root": {"type": "disk", "path": "/"}},
    created_at=1700000000.0,
    expires_at=1800000000.0,
)


def test_what_lxd_offers_is_understood() -> None:
    """It would rather send its driver's stream, and falls back to rsync."""
    offer = offer_of(OF_LXD)
    assert (offer.by_rsync, offer.has_archive, offer.is_live, offer.shift) == (True, False, False, 0)
    assert offer.features == {"xattrs", "delete", "compress", "bidirectional"}
    (snapshot,) = offer.snapshots
    assert (snapshot.name, snapshot.created_at, snapshot.expires_at) == ("s0", 0.0, 0.0)


def test_offers_and_answers_come_through() -> None:
    offer = Offer(has_archive=True, features=FEATURES, snapshots=(SNAPSHOT,))
    assert offer_of(header_of_offer(offer)) == offer
    for answer in (
        Answer(features=FEATURES, refresh=True, snapshots=(SNAPSHOT,)),
        Answer(features=frozenset({"xattrs"})),
        Answer(archive=True, by_rsync=False),
    ):
        assert answer_of(header_of_answer(answer)) == answer


def _header(**fields: object) -> bytes:
    return bytes(pb.MigrationHeader(fs=0, rsync=pb.RsyncFeatures(xattrs=True), **fields).SerializeToString())


def test_ids_are_shifted_by_what_each_disk_says() -> None:
    """LXD shifts a disk when its instance starts; its snapshots stay as they were."""
    ids = [pb.IdRange(is_uid=True, host=1000000, inside=0, count=9)]
    was = pb.MigratedSnapshot(name="s", config=[pb.Setting(key="volatile.last_state.idmap", value="[]")])
    told = pb.MigratedSnapshot(name="t")
    offer = offer_of(_header(idmap=ids, snapshot_names=["s", "t"], snapshots=[was, told]))
    assert (offer.shift, [snapshot.shift for snapshot in offer.snapshots]) == (1000000, [0, 1000000])


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"\xff\xff", Invalid),
        (b"\0" * (5 << 20), Invalid),
        (_header(snapshot_names=["a"]), Invalid),
        (_header(snapshot_names=["a", "a"], snapshots=[pb.MigratedSnapshot(name="a")]), Invalid),
        (_header(snapshot_names=[f"s{n}" for n in range(1001)]), Invalid),
        (_header(idmap=[pb.IdRange(host=-1, inside=0, count=1)]), Unsupported),
        (_header(idmap=[pb.IdRange(host=h, inside=0, count=1) for h in (5, 9)]), Unsupported),
        (
            _header(
                snapshot_names=["a"],
                snapshots=[
                    pb.MigratedSnapshot(
                        name="a", config=[pb.Setting(key="volatile.last_state.idmap", value="{}[")]
                    )
                ],
            ),
            Invalid,
        ),
    ],
)
def test_headers_of_strangers_are_refused(raw: bytes, error: type[PodiumError]) -> None:
    with pytest.raises(error):
        offer_of(raw)


def test_only_what_was_offered_is_sent() -> None:
    """Of a refresh the snapshots that are missing there; else all."""
    second = ArrivedEntry("s2", "", created_at=2.0)
    offer = Offer(snapshots=(SNAPSHOT, second))
    assert wanted_of(offer, Answer()) == ["s1", "s2"]
    assert wanted_of(offer, Answer(refresh=True, snapshots=(second,))) == ["s2"]
    with pytest.raises(Invalid, match="not here"):
        wanted_of(offer, Answer(refresh=True, snapshots=(ArrivedEntry("s7", ""),)))
    with pytest.raises(Unsupported, match="no way of migration"):
        wanted_of(offer, Answer(by_rsync=False))


def test_a_snapshot_is_told_by_name_and_second() -> None:
    assert missing([SNAPSHOT], [("s1", 1700000000.9)]) == []
    assert missing([SNAPSHOT], [("s1", 1700000001.0), ("s2", 1700000000.0)]) == [SNAPSHOT]
    of_volume = ArrivedEntry("s0", "")
    assert missing([of_volume], [("s0", 1700000001.0)]) == []
    assert missing([of_volume], [("s1", 0.0)]) == [of_volume]


def test_what_a_pool_says_of_rsync_holds_for_what_is_offered() -> None:
    """Podium's archive is quicker, but keeps to no bound."""
    assert offer_from({}, ()) == Offer(has_archive=True, features=FEATURES)
    plain = offer_from({"rsync.compression": "false", "rsync.bwlimit": "10MB"}, ())
    assert (plain.has_archive, plain.bound, plain.features) == (False, "10MB", FEATURES - {"compress"})
