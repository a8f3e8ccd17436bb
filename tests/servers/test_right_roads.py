"""Refusals that lead on: what the embedded engine lacks, what no retry can help, and lists with words of their own."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from mcp_toolserver.errors import InvalidArguments, NotFound
from tests.contract.comfyui.conftest import strong_lora
from tests.servers.comfy_tools import EngineUnderTest, comfy_tools


async def test_the_embedded_engine_leads_on_the_right_road(tmp_path: Path) -> None:
    settings = EngineUnderTest("", tmp_path).settings(
        tmp_path, backend="embedded", comfyui_dir=None, comfyui_api_url=None
    )
    loras = tmp_path / "comfyui" / "models" / "loras"
    async with comfy_tools(settings) as tools:
        await tools("list-models")
        for arguments in ({"frames": 0}, {"fps": 0}):
            with pytest.raises(InvalidArguments) as wrong:
                await tools("generate-video", prompt="a cat", **arguments)
            assert wrong.value.details["field"] in arguments
        with pytest.raises(NotFound, match="makes no videos") as video:
            await tools("generate-video", prompt="a cat")
        with pytest.raises(NotFound, match="no upscale models") as upscaled:
            await tools("generate-image", prompt="a cat", upscale_model="4x-sharp.pth")
        with pytest.raises(InvalidArguments) as engine:
            await tools("generate-image", prompt="a cat", engine="comfyui")
        with pytest.raises(InvalidArguments, match="one of the vae"):
            await tools("get-model-tips", filename="tinyflux-ae.safetensors")
        (loras / "one.safetensors").write_bytes(strong_lora(1, {"ss_base_model_version": "flux1"}))
        many = {"ss_tag_frequency": "x" * 2_000_000, "name": "many"}
        (loras / "long.safetensors").write_bytes(save({"a.lora_A.weight": np.zeros((1, 1))}, many))
        listed = await tools("list-loras", architecture="FLUX")
        with pytest.raises(InvalidArguments) as mistyped:
            await tools("list-loras", architecture="flx")
        told = await tools("get-lora-info", lora_name="long.safetensors")
    assert "COMFYUI_API_URL" in (video.value.hint or "")
    assert upscaled.value.details["field"] == "upscale_model"
    assert not engine.value.retryable
    assert [lora["name"] for lora in listed["loras"]] == ["one.safetensors"]
    assert "flux" in mistyped.value.details["closest_matches"]
    assert told["metadata"]["name"] == "many"
    assert len(str(told)) < 50_000
    assert any("ss_tag_frequency (2000000 characters)" in warning for warning in told["warnings"])
