"""Wire the image service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio

import grpc

from core.metrics import start_metrics
from core.operations.runner import Runner
from core.operations.servicer import NAME as OPERATIONS
from core.operations.servicer import OperationServicer
from core.process import take_lock
from core.rpc.server import serve
from core.settings import Settings
from core.state.etcd import EtcdStore
from protos.podium.common.v1 import common_pb2_grpc
from protos.podium.image.v1 import image_pb2_grpc as rpc
from services.image.blobs.files import FileBlobs
from services.image.formats.squashfs import SquashfsConverter
from services.image.servicer.services import ImageServicer
from services.image.store import ImageStore
from services.image.usecases.images import Images
from services.image.usecases.imports import Imports

_SWEEP_EVERY_S = 300.0


async def main() -> None:
    settings = Settings.from_env()
    lock = take_lock(settings, "image")
    start_metrics(settings.metrics_port("image"))
    etcd = EtcdStore(settings.etcd_endpoint, member=settings.member, service="image")
    store, blobs = ImageStore(etcd), FileBlobs(settings.state_dir / "images")
    runner = Runner(etcd, service="image", member=settings.member)
    imports = Imports(store, blobs, SquashfsConverter(), runner)
    images = Images(store, blobs, runner, imports.remove_unused)
    await store.start()
    await runner.start()
    await imports.clean()

    def register(server: grpc.aio.Server) -> list[str]:
        rpc.add_ImageServiceServicer_to_server(ImageServicer(store, images, imports, runner), server)
        common_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(runner), server)
        return ["podium.image.v1.ImageService", OPERATIONS]

    server = await serve(settings, "image", register)
    try:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await imports.sweep()
    finally:
        await server.stop(1)
        await runner.stop()
        await store.stop()
        await etcd.close()
        assert lock
