"""The health check of compose.yaml's containers, on a real gRPC server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from core.rpc.server import serve
from core.settings import Settings
from deploy.privileges import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="curl is in the containers' image, not here")


async def is_healthy(folder: Path, service: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        ROOT / "deploy" / "compose" / "health",
        service,
        env={"PODIUM_DIR": str(folder), "PATH": "/usr/bin:/bin"},
    )
    return await asyncio.wait_for(process.wait(), 10) == 0


def settings_in(folder: Path) -> Settings:
    (folder / "run").mkdir()
    return Settings.from_env({"PODIUM_DIR": str(folder)})


async def test_a_service_that_serves_is_healthy(tmp_path: Path) -> None:
    """Every service starts by core.rpc.server.serve, so this one stands for all."""
    server = await serve(settings_in(tmp_path), "image", lambda server: [])
    try:
        assert await is_healthy(tmp_path, "image")
    finally:
        await server.stop(None)


async def test_a_service_that_is_gone_is_not(tmp_path: Path) -> None:
    settings_in(tmp_path)

    assert not await is_healthy(tmp_path, "image")


async def test_a_service_that_says_not_serving_is_not(tmp_path: Path) -> None:
    """An answer is not enough: the check must read it."""
    register: Callable[..., None] = health_pb2_grpc.add_HealthServicer_to_server
    checker = health.aio.HealthServicer()
    await checker.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.aio.server()
    register(checker, server)
    server.add_insecure_port(f"unix:{settings_in(tmp_path).service_socket('image')}")
    await server.start()
    try:
        assert not await is_healthy(tmp_path, "image")
    finally:
        await server.stop(None)
