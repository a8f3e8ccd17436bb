"""The servers that the contract is held against: the embedded one, and a real one at COMFYUI_URL if there is one.

COMFYUI_CHECKPOINT and COMFYUI_LORA name a FLUX checkpoint and a LoRA that fits it, as the real server lists them.
"""

import os
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from tests.conftest import server_process
from tests.contract.comfyui.talk import Comfy, Names, talking
from tinyflux import TARGET_SHAPES

REAL_URL = os.environ.get("COMFYUI_URL")
LORA_NAME = "contract_lora.safetensors"


@pytest.fixture(scope="session", params=["embedded", *(["real"] if REAL_URL else [])])
def comfy_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Give the address of each server in turn."""
    if request.param == "real":
        assert REAL_URL is not None
        yield REAL_URL.rstrip("/")
        return
    with server_process("comfy_mcp.embedded", "--data-dir", str(tmp_path_factory.mktemp("comfyui"))) as (_, url):
        yield url


@pytest.fixture(scope="session")
def names(comfy_url: str) -> Names:
    """Install a LoRA through the server's own upload, and choose a checkpoint."""
    form = {"type": "output", "subfolder": "loras", "overwrite": "true"}
    with httpx.Client(base_url=comfy_url, trust_env=False) as http:
        files = {"image": (LORA_NAME, strong_lora(), "application/octet-stream")}
        assert http.post("/upload/image", data=form, files=files).status_code == 200
        checkpoints: list[str] = http.get("/models/checkpoints").json()
        version: str = http.get("/system_stats").json()["system"]["comfyui_version"]
    if comfy_url == (REAL_URL or "").rstrip("/"):
        checkpoint, lora = (
            os.environ.get("COMFYUI_CHECKPOINT", checkpoints[0]),
            os.environ.get("COMFYUI_LORA", LORA_NAME),
        )
        return Names(checkpoint, lora, version)
    return Names(checkpoints[0], LORA_NAME, version)


@pytest.fixture
async def comfy(comfy_url: str, names: Names) -> AsyncGenerator[Comfy]:
    """Give a connected client."""
    async with talking(comfy_url, names) as client:
        yield client
        # A test that failed half-way leaves a run without end, which a real server would go on with for hours.
        await client.stop_all()


def strong_lora(seed: int = 0, metadata: dict[str, str] | None = None) -> bytes:
    """Return a LoRA of random layers, strong enough to change every picture of tinyflux."""
    random = np.random.RandomState(seed)
    tensors: dict[str, np.ndarray] = {}
    for module, (wide, narrow) in TARGET_SHAPES.items():
        tensors[f"transformer.{module}.lora_A.weight"] = random.standard_normal((4, narrow)).astype(np.float16)
        tensors[f"transformer.{module}.lora_B.weight"] = (0.05 * random.standard_normal((wide, 4))).astype(np.float16)
    return save(tensors, metadata or {"name": "contract"})


def write_lora(path: Path, seed: int = 0) -> None:
    """Write such a LoRA."""
    path.write_bytes(strong_lora(seed))
