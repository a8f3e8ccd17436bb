"""Which file a picture or a video starts from, and which files go with it: told by headers, and by names."""

import json
import math
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.engines.selection import Selected
from comfy_mcp.models.base_models import BaseModels
from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import Models
from comfy_mcp.workflows import SplitModel
from mcp_toolserver.errors import InvalidArguments, NotFound
from tests.servers.comfy_tools import EngineUnderTest, comfy_tools, engine_process

Shapes = Mapping[str, tuple[int, ...]]

LTX: Shapes = {"model.diffusion_model.transformer_blocks.0.attn1.to_q.weight": (4096, 4096), "vae.decoder.x": (8,)}
FLUX: Shapes = {"double_blocks.0.img_attn.qkv.weight": (9216, 3072), "img_in.weight": (3072, 64)}
FLUX_WHOLE: Shapes = {
    **{f"model.diffusion_model.{name}": shape for name, shape in FLUX.items()},
    "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
    "vae.decoder.conv_in.weight": (512, 16, 3, 3),
}
WAN: Shapes = {"blocks.0.self_attn.q.weight": (3072, 3072), "blocks.0.cross_attn.q.weight": (3072, 3072)}


def write_sparse(path: Path, shapes: Shapes) -> None:
    """Write the header of a model, and as many zeros as it asks for without a place on the disk."""
    at, header = 0, dict[str, object]()
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        models = running.folder / "models"
        write_sparse(models / "checkpoints" / "moving-distilled.safetensors", LTX)
        write_sparse(models / "checkpoints" / "flux1-dev.safetensors", FLUX)
        write_sparse(models / "checkpoints" / "flux1-dev-whole.safetensors", FLUX_WHOLE)
        write_sparse(models / "diffusion_models" / "mine.safetensors", WAN)
        yield running


@asynccontextmanager
async def base_models(engine: EngineUnderTest, tmp_path: Path) -> AsyncGenerator[BaseModels]:
    async def selected() -> Selected:
        return Selected(engine="comfyui", url=engine.url)

    comfyui = ComfyUI(fixed(engine.url))
    async with comfyui.running():
        folders = ModelFolders(comfyui, selected, comfyui_dir=engine.folder, embedded_dir=tmp_path)
        yield BaseModels(Models(comfyui), folders)


async def test_a_bare_diffusion_model_among_the_checkpoints_gets_encoders_and_vae(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with base_models(engine, tmp_path) as models:
        bare = await models.choose("flux1-dev.safetensors")
        whole = await models.choose("flux1-dev-whole.safetensors")
        own = await models.choose("checkpoints/tinyflux-base.safetensors")
    assert bare.model == SplitModel(
        diffusion_model="flux1-dev.safetensors",
        text_encoders=("tinyflux-clip_l.safetensors", "tinyflux-t5xxl.safetensors"),
        vae="tinyflux-ae.safetensors",
        loader="CheckpointLoaderSimple",
    )
    assert (bare.family, bare.variant) == ("flux", "flux")
    assert whole.model == "flux1-dev-whole.safetensors"
    assert own.model == "tinyflux-base.safetensors"


async def test_the_header_tells_the_variant_and_what_the_checkpoint_lacks(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with base_models(engine, tmp_path) as models:
        chosen = await models.choose("moving-distilled.safetensors", "videos")
    assert chosen.variant == "ltx-video-13b-distilled"
    assert chosen.model == SplitModel(
        diffusion_model="moving-distilled.safetensors",
        text_encoders=("tinyflux-t5xxl.safetensors",),
        loader="CheckpointLoaderSimple",
    )


async def test_missing_files_are_named_with_their_folders(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(NotFound, match=r"umt5_xxl .*wan2\.2_vae") as refused:
            await tools("generate-video", prompt="waves", video_model="mine.safetensors")
        assert (await tools("list-jobs"))["jobs"] == []
    assert refused.value.details["missing"] == ["umt5_xxl", "wan2.2_vae"]
    assert refused.value.details["family"] == "wan-2.2-ti2v-5b"
    assert "wan2.2_vae.safetensors into models/vae" in (refused.value.hint or "")


async def test_nodes_that_an_engine_lacks_are_named_before_anything_is_queued(
    engine: EngineUnderTest, tmp_path: Path
) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(InvalidArguments) as refused:
            await tools("generate-video", prompt="waves", video_model="moving-distilled.safetensors")
        assert (await tools("list-jobs"))["jobs"] == []
    unknown = [found for found in refused.value.details["problems"] if found["code"] == "missing_node_type"]
    assert {"LTXVScheduler", "SaveAnimatedWEBP"} <= {found["class_type"] for found in unknown}


async def test_each_tool_refuses_the_models_of_the_other(engine: EngineUnderTest, tmp_path: Path) -> None:
    async with comfy_tools(engine.settings(tmp_path)) as tools:
        with pytest.raises(InvalidArguments, match="LTX-Video 13B distilled is a model for `generate-video`"):
            await tools("generate-image", prompt="waves", checkpoint="moving-distilled.safetensors")
        with pytest.raises(InvalidArguments, match=r"Wan 2\.2 TI2V 5B is a model for `generate-video`"):
            await tools("generate-image", prompt="waves", checkpoint="mine.safetensors")
        with pytest.raises(NotFound, match="`video_model` is `movng"):
            await tools("generate-video", prompt="waves", model="movng-distilled.safetensors")


async def test_without_a_name_the_first_that_fits_is_taken(tmp_path: Path) -> None:
    with engine_process(tmp_path / "comfyui") as engine:
        models = engine.folder / "models"
        for shipped in models.rglob("tinyflux-*"):
            shipped.unlink()
        async with base_models(engine, tmp_path) as found:
            with pytest.raises(NotFound, match="no model that makes videos"):
                await found.choose(None, "videos")
            write_sparse(
                models / "checkpoints" / "flux2-dev.safetensors", {"double_stream_modulation.lin.weight": (2, 2)}
            )
            with pytest.raises(NotFound, match="None of ComfyUI's 1 models") as none:
                await found.choose(None)
            for name in ("flux1-dev-kontext.safetensors", "flux1-dev.safetensors", "a-photo-xl.safetensors"):
                write_sparse(models / "checkpoints" / name, FLUX_WHOLE)
            assert (await found.choose(None)).name == "flux1-dev.safetensors"
            for kind, name in (
                ("text_encoders", "qwen_2.5_vl_7b_fp8_scaled"),
                ("text_encoders", "byt5_small_glyphxl_fp16"),
                ("vae", "hunyuanvideo15_vae_fp16"),
                ("diffusion_models", "hunyuanvideo1.5_720p_i2v_fp16"),
                ("diffusion_models", "hunyuanvideo1.5_720p_t2v_fp16"),
            ):
                write_sparse(models / kind / f"{name}.safetensors", {"x.weight": (2, 2)})
            assert (
                await found.choose(None, "videos", reads_image=False)
            ).name == "hunyuanvideo1.5_720p_t2v_fp16.safetensors"
            with pytest.raises(NotFound, match="sigclip_vision") as vision:
                await found.choose(None, "videos", reads_image=True)
    assert "FLUX.1" in (none.value.hint or "")
    assert "models/clip_vision" in (vision.value.hint or "")
