"""Wire the image service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio

import grpc

from core.service import member_service
from protos.podium.image.v1 import image_pb2_grpc as rpc
from services.image.blobs.files import FileBlobs
from services.image.formats.squashfs import SquashfsConverter
from services.image.servicer.services import ImageServicer
from services.image.sources.mmdebstrap import Mmdebstrap
from services.image.store import ImageStore
from services.image.usecases.builds import Builds
from services.image.usecases.images import Images
from services.image.usecases.imports import Imports

_SWEEP_EVERY_S = 300.0


async def main() -> None:
    async with member_service("image") as service:
        store, blobs = ImageStore(service.etcd), FileBlobs(service.settings.state_dir / "images")
        runner = service.runner()
        imports = Imports(store, blobs, SquashfsConverter(), runner)
        images = Images(store, blobs, runner, imports.remove_unused)
        builds = Builds(store, blobs, Mmdebstrap(), imports, images, runner)
        service.at_end(imports.stop)
        await service.start(store)
        await service.start(runner)
        await imports.clean()

        def register(server: grpc.aio.Server) -> list[str]:
            rpc.add_ImageServiceServicer_to_server(
                ImageServicer(store, images, imports, builds, runner), server
            )
            return ["podium.image.v1.ImageService"]

        await service.serve(register, runner)
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await imports.sweep()
            await images.record_uses()
