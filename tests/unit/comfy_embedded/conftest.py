"""One embedded ComfyUI for all tests that need a running one, over a data directory that they may touch."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from tests.conftest import server_process
from tests.contract.comfyui.conftest import LORA_NAME, write_lora
from tests.contract.comfyui.talk import Comfy, Names, talking


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that the server works in."""
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="session")
def embedded_url(data_dir: Path) -> Generator[str]:
    """Run the server."""
    with server_process("comfy_mcp.embedded", "--data-dir", str(data_dir)) as (_, url):
        write_lora(data_dir / "models" / "loras" / LORA_NAME)
        yield url


@pytest.fixture
async def comfy(embedded_url: str) -> AsyncGenerator[Comfy]:
    """Give a connected client."""
    async with talking(embedded_url, Names("tinyflux-base.safetensors", LORA_NAME)) as client:
        yield client
