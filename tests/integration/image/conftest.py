"""The image service as a fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.state.memory import MemoryStore
from tests.integration.image.harness import Service, image_service


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with image_service(tmp_path, MemoryStore()) as running:
        yield running
