"""index.yaml of a stranger: read as LXD writes it, refused in a sentence where it is anything else."""

from __future__ import annotations

import pytest

from core.errors import Invalid, PodiumError, Unsupported
from services.image.domain.backupindex import MAX_BYTES, parse

_LXD = b"""\
name: c1
backend: btrfs
pool: default
snapshots:
- s1
optimized: false
optimized_header: false
type: container
config:
  container:
    architecture: x86_64
    config:
      limits.cpu: 2
      user.on: on
      volatile.last_state.idmap: '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":65536}]'
    devices:
      root: {path: /, pool: default, type: disk}
    ephemeral: false
    profiles: [default]
    description: ""
    created_at: 2026-11-24T10:05:40.37073404Z
    last_used_at: 0001-01-01T00:00:00Z
    name: c1
  snapshots:
  - name: s1
    architecture: x86_64
    config: {volatile.last_state.idmap: '[]'}
    expires_at: 2030-01-01T00:00:00Z
    created_at: 2026-11-24T10:06:40Z
"""


def test_an_index_of_lxd_is_understood() -> None:
    """Scalars stay the text they are written as, and each root knows how its ids were shifted."""
    index = parse(_LXD)

    assert (index.pool, index.instance.name, index.instance.profiles) == ("default", "c1", ("default",))
    assert index.instance.config["limits.cpu"] == "2"
    assert index.instance.config["user.on"] == "on"
    assert (index.instance.base_dir, index.instance.shift) == ("backup/container/rootfs", 1000000)
    assert index.instance.created_at == pytest.approx(1795514740.37, abs=0.01)
    assert index.instance.last_used_at == 0.0
    (snapshot,) = index.snapshots
    assert (snapshot.name, snapshot.base_dir, snapshot.shift) == ("s1", "backup/snapshots/s1/rootfs", 0)
    assert snapshot.expires_at > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[]", "no map"),
        (b"name: [c1]", "name is no text"),
        (b"config: 1", "no map"),
        (b"config: {container: [1]}", "no map"),
        (b"config: {container: {config: {a: [1]}}}", "no map of texts"),
        (b"config: {container: {config: {a: {b: c}}}}", "no map of texts"),
        (b"config: {container: {devices: {a: 1}}}", "a device is no map"),
        (b"config: {container: {profiles: x}}", "no list"),
        (b"config: {container: {profiles: [[x]]}}", "no list of texts"),
        (b"config: {container: {created_at: yesterday}}", "no time"),
        (b"snapshots: [a]", "describe each of its snapshots"),
        (b"snapshots: [a, a]\nconfig: {snapshots: [{name: a}]}", "describe each of its snapshots"),
        (b"snapshots: [../..]\nconfig: {snapshots: [{name: ../..}]}", "no name of a snapshot"),
        (b"snapshots: ['.']\nconfig: {snapshots: [{name: '.'}]}", "no name of a snapshot"),
        (b"snapshots: [a/b]\nconfig: {snapshots: [{name: a/b}]}", "no name of a snapshot"),
        (b"config: {snapshots: [7, [x]]}", "no map"),
        (b"config: {container: {config: {volatile.last_state.idmap: '[1]'}}}", "idmap is not usable"),
        (b"config: {container: {config: {volatile.last_state.idmap: x}}}", "idmap is not usable"),
        (
            b"config: {container: {config: {volatile.last_state.idmap: "
            b'\'[{"Isuid":true,"Nsid":0,"Hostid":-5}]\'}}}',
            "idmap is not usable",
        ),
        (b"a: &a [x]\nb: [*a, *a]", "aliases are not allowed"),
        (b"[" * 40 + b"]" * 40, "too complex"),
        (b"- x\n" * 250_000, "larger than|too complex"),
        (b"\x80\x81", "not YAML"),
        (b"a: b: c", "not YAML"),
        (b"x" * (MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_index_is_refused_in_a_sentence(text: bytes, said: str) -> None:
    """CVE-2026-41684, -40251, -40197, -41647, -47753 ...: each of the like ended LXD's daemon."""
    with pytest.raises(Invalid, match=said):
        parse(text)


@pytest.mark.parametrize("text", [b"type: virtual-machine", b"optimized: true"])
def test_what_only_lxd_can_read_is_refused_with_the_reason(text: bytes) -> None:
    """A btrfs stream would be parsed by the kernel, as root; a machine is none of ours."""
    with pytest.raises(Unsupported):
        parse(text)


def test_any_truncation_is_refused_or_read() -> None:
    """No prefix of an index does anything but that."""
    for size in range(0, len(_LXD), 7):
        try:
            parse(_LXD[:size])
        except PodiumError:
            continue


_VOLUME = b"""\
name: data
pool: default
snapshots: [s0]
type: custom
config:
  volume:
    config:
      size: 10MiB
      volatile.idmap.last: '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":65536}]'
    description: d
    content_type: filesystem
  volume_snapshots:
  - {name: s0, config: {}, expires_at: 2030-01-01T00:00:00Z}
"""


def test_the_index_of_a_volume_names_its_folders() -> None:
    """LXD shifts what it attaches: its archive of a volume holds ids of the host."""
    index = parse(_VOLUME)

    assert (index.kind, index.instance.name, index.instance.description) == ("custom", "data", "d")
    assert (index.instance.base_dir, index.instance.shift) == ("backup/volume", 1000000)
    assert [s.base_dir for s in index.snapshots] == ["backup/volume-snapshots/s0"]


def test_a_block_volume_is_refused() -> None:
    with pytest.raises(Unsupported, match="virtual machines"):
        parse(_VOLUME.replace(b"content_type: filesystem", b"content_type: block"))
