"""Videos: the nodes of each model, and frames and sides that it can render."""

from typing import Any

import pytest

from comfy_mcp.workflows import BuiltVideo, Graph, VideoRequest, build_video
from comfy_mcp.workflows.video_recipes import VIDEO_RECIPES
from mcp_toolserver.errors import InvalidArguments

from .models import in_parts

T2V, I2V = "hunyuanvideo1.5_720p_t2v_fp16.safetensors", "hunyuanvideo1.5_720p_i2v_fp16.safetensors"


def built(variant: str, *, file: str | None = None, **changes: Any) -> BuiltVideo:
    fields: dict[str, Any] = {"checkpoint": in_parts(variant, file), "seed": 1, **changes}
    return build_video(VideoRequest(**fields), variant)


def one(graph: Graph, class_type: str) -> dict[str, Any]:
    [found] = [node["inputs"] for node in graph.values() if node["class_type"] == class_type]
    return found


def source(graph: Graph, link: Any) -> str:
    return graph[link[0]]["class_type"]


def test_ltx_video_begins_from_text_with_its_own_noise_levels() -> None:
    made = built("ltx-video", prompt="a boat")
    assert one(made.graph, "CLIPLoader")["type"] == "ltxv"
    assert one(made.graph, "LTXVConditioning")["frame_rate"] == 24.0
    assert one(made.graph, "EmptyLTXVLatentVideo") == {"width": 768, "height": 768, "length": 49, "batch_size": 1}
    sampler = one(made.graph, "SamplerCustom")
    assert (sampler["cfg"], sampler["noise_seed"]) == (3.0, 1)
    assert source(made.graph, sampler["sigmas"]) == "LTXVScheduler"
    assert one(made.graph, "LTXVScheduler")["steps"] == 30
    assert made.workflow_name == "ltx-video-txt2vid"


def test_ltx_video_begins_from_a_picture() -> None:
    made = built("ltx-video-13b-distilled", input_image="room.png", negative_prompt="fog")
    begun = one(made.graph, "LTXVImgToVideo")
    assert source(made.graph, begun["image"]) == "LoadImage"
    assert source(made.graph, one(made.graph, "LTXVConditioning")["positive"]) == "LTXVImgToVideo"
    assert (one(made.graph, "SamplerCustom")["cfg"], one(made.graph, "LTXVScheduler")["steps"]) == (1.0, 8)
    assert "`negative_prompt` was left out" in made.warnings[0]


def test_wan_moves_as_strongly_as_asked() -> None:
    made = built("wan-2.2-ti2v-5b", input_image="room.png", prompt="waves")
    assert one(made.graph, "ModelSamplingSD3")["shift"] == 8.0
    assert source(made.graph, one(made.graph, "Wan22ImageToVideoLatent")["start_image"]) == "LoadImage"
    assert (one(made.graph, "KSampler")["sampler_name"], one(made.graph, "KSampler")["cfg"]) == ("uni_pc", 5.0)
    still, wild = (
        one(built("wan-2.2-ti2v-5b", prompt="waves", motion_strength=strength).graph, "ModelSamplingSD3")["shift"]
        for strength in (0.0, 1.0)
    )
    assert (still, wild) == (1.0, 11.0)
    assert "start_image" not in one(built("wan-2.2-ti2v-5b", prompt="waves").graph, "Wan22ImageToVideoLatent")


def test_motion_strength_is_for_wan_alone() -> None:
    assert "`motion_strength` 0.5 was ignored" in built("ltx-video", prompt="x", motion_strength=0.5).warnings[0]


def test_hunyuan_video_looks_at_the_first_frame() -> None:
    made = built("hunyuan-video-1.5", file=I2V, input_image="room.png")
    begun = one(made.graph, "HunyuanVideo15ImageToVideo")
    assert source(made.graph, begun["clip_vision_output"]) == "CLIPVisionEncode"
    assert one(made.graph, "DualCLIPLoader")["type"] == "hunyuan_video_15"
    assert one(made.graph, "ModelSamplingSD3")["shift"] == 7.0
    sampler = one(made.graph, "KSampler")
    assert (sampler["latent_image"][1], sampler["negative"][1], sampler["cfg"]) == (2, 1, 6.0)
    assert one(built("hunyuan-video-1.5", file=T2V, prompt="x").graph, "EmptyHunyuanVideo15Latent")["length"] == 49


def test_a_model_for_one_beginning_refuses_the_other() -> None:
    with pytest.raises(InvalidArguments, match="from an image alone"):
        built("hunyuan-video-1.5", file=I2V, prompt="x")
    with pytest.raises(InvalidArguments, match="from text alone"):
        built("hunyuan-video-1.5", file=T2V, prompt="x", input_image="room.png")
    with pytest.raises(InvalidArguments, match="`input_image`, `prompt`, or both"):
        built("wan-2.2-ti2v-5b", prompt=" ")
    with pytest.raises(InvalidArguments, match="CLIP vision") as refused:
        build_video(VideoRequest(checkpoint="mine.safetensors", seed=1, input_image="room.png"), "hunyuan-video-1.5")
    assert refused.value.details["missing"] == "clip_vision"


@pytest.mark.parametrize(
    ("variant", "asked", "rendered"),
    [
        ("ltx-video", 49, 49),
        ("ltx-video", 50, 49),
        ("ltx-video", 1, 9),
        ("ltx-video", 120, 121),
        ("wan-2.2-ti2v-5b", 81, 81),
        ("wan-2.2-ti2v-5b", 80, 81),
        ("wan-2.2-ti2v-5b", 2, 5),
        ("hunyuan-video-1.5", 25, 25),
    ],
)
def test_frames_are_what_the_model_can_render(variant: str, asked: int, rendered: int) -> None:
    made = built(variant, file=T2V if "hunyuan" in variant else None, prompt="x", frames=asked)
    assert made.settings.frames == rendered
    assert any("`frames`" in warning for warning in made.warnings) == (asked != rendered)


def test_sides_are_what_the_model_can_render() -> None:
    made = built("wan-2.2-ti2v-5b", prompt="x", width=850, height=480)
    assert (made.settings.width, made.settings.height) == (864, 480)
    assert "multiples of 32" in made.warnings[0]


def test_too_long_and_too_large_are_said() -> None:
    told = " ".join(built("hunyuan-video-1.5", file=T2V, prompt="x", frames=201, width=1280, height=1280).warnings)
    assert "longer than the 121" in told
    assert "GB of VRAM" in told
    assert built("ltx-video", prompt="x").warnings == ()


def test_a_server_without_videos_saves_an_animated_picture() -> None:
    video = built("ltx-video", prompt="x", fps=16)
    assert one(video.graph, "CreateVideo")["fps"] == 16.0
    assert one(video.graph, "SaveVideo")["codec"] == "auto"
    assert video.settings.duration_s == 49 / 16
    webp = built("ltx-video", prompt="x", fps=16, as_webp=True)
    assert one(webp.graph, "SaveAnimatedWEBP")["fps"] == 16.0


@pytest.mark.parametrize(
    ("asked", "field", "closest"),
    [
        ({"frames": 0}, "frames", 1),
        ({"fps": 500}, "fps", 120),
        ({"width": 64}, "width", 256),
        ({"height": 4096}, "height", 1920),
        ({"motion_strength": 1.5}, "motion_strength", 1.0),
        ({"steps": 0}, "steps", 1),
    ],
)
def test_numbers_out_of_range_are_refused_with_the_closest(asked: dict[str, Any], field: str, closest: float) -> None:
    with pytest.raises(InvalidArguments) as refused:
        built("ltx-video", prompt="x", **asked)
    assert (refused.value.details["field"], refused.value.details["closest"]) == (field, closest)


def test_a_model_without_a_graph_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidArguments, match="no built-in graph for Wan") as refused:
        build_video(VideoRequest(checkpoint="wan2.2_t2v_high_noise_14B.safetensors", seed=1, prompt="x"), "wan")
    assert refused.value.details["families"] == list(VIDEO_RECIPES)
    with pytest.raises(InvalidArguments, match="is a model for `generate-image`"):
        build_video(VideoRequest(checkpoint="flux1-dev.safetensors", seed=1, prompt="x"), "flux")
