"""When templates of instances are rendered, and whose they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.errors import Invalid, LimitReached, NotFound
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import cloudinit
from services.runtime.domain.expand import Expanded
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.instances.change import Update
from services.runtime.usecases.peers import About
from tests.fakes.runtime_host import FakeBeside


def a_template(*when: str, create_only: bool = False) -> dict[str, Any]:
    return {"when": list(when), "template": "t.tpl", "create_only": create_only, "properties": {}}


def an_about() -> About:
    templates = {
        "/first": a_template("create"),
        "/each": a_template("start"),
        "/renamed": a_template("rename"),
        "/once": a_template("start", create_only=True),
    }
    return About({"templates": templates}, {"t.tpl": b"x"})


def instance_of(world: Any, name: str = "web") -> Any:
    return world.host.store.instance("default", name).record


async def test_what_is_due_comes_at_the_next_start_and_once(world: Any) -> None:
    """As LXD does it: creating and renaming are remembered in a volatile key until then."""
    await world.made()
    images = world.host.images
    images.abouts[instance_of(world).image] = an_about()

    await world.changed("start")
    assert images.rendered == [("/first", "create"), ("/each", "start"), ("/once", "start")]
    images.rendered.clear()
    await world.changed("stop", force=True)
    await world.done(await world.changes.rename("default", "web", "shop"))
    await world.changed("start", "shop")

    assert images.rendered == [("/renamed", "rename"), ("/each", "start")]
    observed = world.host.store.observed_of(instance_of(world, "shop")).record
    assert "volatile.apply_template" not in observed.volatile


async def test_a_template_that_is_missing_is_named(world: Any) -> None:
    """The start fails with a sentence, not with a file half made."""
    await world.made()
    world.host.images.abouts[instance_of(world).image] = About({"templates": {"/a": a_template("start")}})

    operation = await world.changed("start")

    assert operation.error_message == 'Template "t.tpl" for /a not found'
    assert world.status() == "stopped"


async def test_templates_become_the_instances_own_when_changed(world: Any) -> None:
    """The image's stay as they are for all other instances."""
    await world.made()
    instance, abouts = instance_of(world), AboutInstances(world.host, FakeBeside())
    world.host.images.abouts[instance.image] = an_about()

    await abouts.write_template(instance, "new.tpl", b"new")
    await abouts.set_metadata(instance, {"properties": {"a": True}}, merge=True)
    await abouts.set_metadata(instance, {"properties": {"b": "x"}}, merge=True)

    own = await abouts.of(instance)
    assert own.templates == {"t.tpl": b"x", "new.tpl": b"new"}
    assert {"a": "true", "b": "x"}.items() <= own.metadata["properties"].items()
    assert own.metadata["templates"] == an_about().metadata["templates"]
    await abouts.delete_template(instance, "new.tpl")
    with pytest.raises(NotFound):
        await abouts.delete_template(instance, "new.tpl")


async def test_a_trigger_with_a_slip_of_the_pen_stays_to_be_seen(world: Any) -> None:
    """And triggers nothing; what is no text, or too much, is left out."""
    await world.made()
    own = a_template("create", "Start", "x" * 99, *("y",) * 99)
    own["when"].insert(0, ["z"])

    abouts = AboutInstances(world.host, FakeBeside())
    await abouts.set_metadata(instance_of(world), {"templates": {"/a": own}}, merge=False)

    [found] = (await abouts.of(instance_of(world))).metadata["templates"].values()
    assert found["when"][:3] == ["create", "Start", "x" * 64]
    assert len(found["when"]) < 17


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb", "x" * 256])
async def test_a_template_has_a_plain_name(world: Any, name: str) -> None:
    """It becomes the name of a file in backups and images."""
    await world.made()
    with pytest.raises(Invalid, match="Invalid template filename"):
        await AboutInstances(world.host, FakeBeside()).write_template(instance_of(world), name, b"")


@pytest.mark.parametrize(
    "metadata",
    [
        {"templates": []},
        {"templates": {"relative": {"template": "a"}}},
        {"templates": {"/../x": {"template": "a"}}},
        {"templates": {"/x": {"template": "../a"}}},
        {"templates": {"/x": {"template": "a", "when": "start"}}},
        {"creation_date": "now"},
        {"architecture": {}},
        {"properties": []},
    ],
)
async def test_metadata_is_checked_as_an_images_is(world: Any, metadata: dict[str, Any]) -> None:
    """What is stored here is carried out by root at the next start."""
    await world.made()
    with pytest.raises(Invalid):
        await AboutInstances(world.host, FakeBeside()).set_metadata(instance_of(world), metadata, merge=False)


async def test_templates_have_bounds(world: Any) -> None:
    """They are kept in the volume and read as a whole."""
    await world.made()
    with pytest.raises(LimitReached):
        await AboutInstances(world.host, FakeBeside()).write_template(
            instance_of(world), "a", b"x" * (257 << 10)
        )


@pytest.mark.parametrize(
    ("config", "devices", "is_new"),
    [
        ({"user.user-data": "x"}, {}, True),
        ({"cloud-init.network-config": "x"}, {}, True),
        ({"user.meta-data": "x"}, {}, False),
        ({"user.foo": "x"}, {}, False),
        ({}, {"eth0": {"type": "nic"}}, True),
        ({}, {"disk": {"type": "disk"}}, False),
    ],
)
def test_cloud_init_runs_again_for_what_it_works_by(
    config: dict[str, str], devices: dict[str, dict[str, str]], is_new: bool
) -> None:
    """The same changes as LXD's."""
    assert (cloudinit.told(Expanded({}, {})) != cloudinit.told(Expanded(config, devices))) == is_new


async def test_a_new_name_or_new_data_make_a_new_cloud_init_id(world: Any) -> None:
    """cloud-init compares this id with the one it saw last."""
    await world.made()
    seen = [world.host.store.observed_of(instance_of(world)).record.volatile[cloudinit.INSTANCE_ID]]
    for config in ({"user.user-data": "x"}, {"user.other": "y"}):
        await world.done(
            await world.changes.update(
                "default", "web", Update(config=config, merge=True), expected_revision=0
            )
        )
        seen.append(world.host.store.observed_of(instance_of(world)).record.volatile[cloudinit.INSTANCE_ID])

    assert seen[0] != seen[1] == seen[2]


async def test_a_profiles_user_data_counts_at_the_next_start(world: Any) -> None:
    """A stopped instance is not told of its profiles; cloud-init must hear of them all the same."""
    await world.made()
    before = world.host.store.observed_of(instance_of(world)).record.volatile[cloudinit.INSTANCE_ID]
    key = keys.profile("default", "default")
    profile = world.host.store.profiles.get(key).record
    changed = replace(profile, config={**profile.config, "cloud-init.user-data": "x"})
    revision = await world.host.store.commit(Txn().put(key, changed))
    await world.host.store.profiles.wait_for(revision, timeout_s=2)

    await world.changed("start")

    after = world.host.store.observed_of(instance_of(world)).record.volatile[cloudinit.INSTANCE_ID]
    assert after != before
