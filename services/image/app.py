"""Wire the image service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio
import platform

from core.service import Servicers, member_service
from protos.podium.image.v1 import (
    about_pb2_grpc,
    base_pb2_grpc,
    copy_pb2_grpc,
    download_pb2_grpc,
    publish_pb2_grpc,
    share_pb2_grpc,
)
from protos.podium.image.v1 import image_pb2_grpc as rpc
from services.image.blobs.files import FileBlobs
from services.image.clients.members import Members
from services.image.clients.runtime import RuntimeClient
from services.image.formats.squashfs import SquashfsConverter
from services.image.servicer.about import AboutServicer
from services.image.servicer.bases import BaseServicer
from services.image.servicer.copies import CopyServicer
from services.image.servicer.downloads import DownloadServicer
from services.image.servicer.lending import Lending
from services.image.servicer.publish import PublishServicer
from services.image.servicer.services import ImageServicer
from services.image.servicer.sharing import ShareServicer
from services.image.sources.mmdebstrap import Mmdebstrap
from services.image.sources.push import Pushers
from services.image.sources.remote import Fetchers
from services.image.store import ImageStore
from services.image.templates.runner import TemplateRunner
from services.image.usecases.about import Abouts
from services.image.usecases.bases import Bases
from services.image.usecases.builds import Builds
from services.image.usecases.choices import Choices
from services.image.usecases.claims import Claims
from services.image.usecases.copies import Copies, Follower
from services.image.usecases.downloads import Downloads
from services.image.usecases.images import Images
from services.image.usecases.imports import Imports
from services.image.usecases.publish import Publish
from services.image.usecases.pushes import Pushes
from services.image.usecases.refresh import Refresh
from services.image.usecases.rooms import Rooms
from services.image.usecases.secrets import Secrets
from services.image.usecases.sharing import Sharing
from services.image.usecases.upkeep import Upkeep

_SWEEP_EVERY_S = 300.0


async def main() -> None:
    async with member_service("image") as service:
        store = ImageStore(service.etcd, service.settings.member)
        blobs = FileBlobs(service.settings.state_dir / "images")
        runner, converter, roots = service.runner(), SquashfsConverter(), RuntimeClient(service.settings)
        service.at_end(roots.close)
        choices = Choices(service.etcd)
        rooms = Rooms(service.etcd, roots)
        copies = Copies(store, blobs, converter, Members(service.etcd, service.settings))
        imports = Imports(store, blobs, converter, runner, rooms, copies.forget)
        images = Images(store, blobs, runner, imports.remove_unused, copies.ensure)
        builds = Builds(store, blobs, Mmdebstrap(), imports, images, runner)
        abouts = Abouts(blobs, converter, copies.ensure)
        fetchers = Fetchers(platform.machine(), service.settings.state_dir / "images", choices.mirrors_of)
        claims = Claims(service.etcd, service.settings.member)
        downloads = Downloads(store, fetchers, imports, images, choices, runner, claims, copies)
        refresh = Refresh(store, downloads, images, runner)
        upkeep = Upkeep(store, choices, images, refresh, runner)
        tokens = Secrets(store, runner)
        pushes = Pushes(store, images, blobs, Pushers(), runner)
        publish = Publish(store, roots, imports, images, choices, runner)
        service.at_end(imports.stop)
        for part in (store, choices, claims, runner):
            await service.start(part)
        await imports.clean()
        await copies.agree()
        await service.start(Follower(store, imports.remove_unused))
        lending = Lending(service.settings.image_lending_socket)
        await service.start(lending)

        servicers = Servicers("podium.image.v1")
        servicers.add(
            rpc.add_ImageServiceServicer_to_server,
            ImageServicer(store, images, imports, builds, runner, lending),
        )
        downloading = DownloadServicer(downloads, refresh, runner)
        servicers.add(download_pb2_grpc.add_DownloadServiceServicer_to_server, downloading)
        publishing = PublishServicer(publish, runner)
        servicers.add(publish_pb2_grpc.add_PublishServiceServicer_to_server, publishing)
        shared = Sharing(store, images, blobs, tokens, copies.offered)
        sharing = ShareServicer(store, shared, tokens, pushes, runner, lending)
        servicers.add(share_pb2_grpc.add_ShareServiceServicer_to_server, sharing)
        telling = AboutServicer(abouts, TemplateRunner())
        servicers.add(about_pb2_grpc.add_AboutServiceServicer_to_server, telling)
        servicers.add(copy_pb2_grpc.add_CopyServiceServicer_to_server, CopyServicer(copies))
        bases = BaseServicer(Bases(store, blobs, converter, rooms))
        servicers.add(base_pb2_grpc.add_BaseServiceServicer_to_server, bases)
        await service.serve(servicers, runner)
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await imports.sweep()
            await copies.agree()
            await claims.sweep()
            await images.record_uses()
            await upkeep.run()
            await tokens.sweep()
