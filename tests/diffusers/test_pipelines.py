"""Rendering with diffusers: tiny random models of every family, made on the spot, on the CPU."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from comfy_mcp.engines.diffusers_models import DiffusersModel
from comfy_mcp.engines.diffusers_pipelines import LoraWeights, PictureRequest, missing_library, render
from comfy_mcp.engines.diffusers_samplers import sampling_of
from tests.diffusers.conftest import TinyModel
from tests.diffusers.tiny_models import make_lora

# What the libraries deprecate among themselves is no fault of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

FAMILIES = ("sd15", "sdxl", "flux")
SAMPLERS = (
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpm_2_ancestral",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "ddim",
    "ddpm",
    "uni_pc",
    "lcm",
)
SPACINGS = ("simple", "sgm_uniform", "ddim_uniform", "karras", "exponential", "beta")


def pictures(model: DiffusersModel, **more: Any) -> list[bytes] | None:
    """Render with what a test does not care about, and return the pixels."""
    asked: dict[str, Any] = {
        "prompt": "a cat",
        "width": 64,
        "height": 64,
        "steps": 2,
        "guidance": 5.0,
        "seed": 3,
        "sampling": sampling_of(model.family, None, None)[0],
        **more,
    }
    made = render(model, PictureRequest(**asked), _on)
    return None if made is None else [picture.convert("RGB").tobytes() for picture in made]


def _on(step: int, steps: int) -> bool:
    return True


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.fixture
def left_half(tmp_path: Path) -> Path:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_nothing_of_the_extra_is_missing() -> None:
    assert missing_library() is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_picture_again(tiny_model: TinyModel, family: str) -> None:
    model = tiny_model(family)
    assert model.family == family
    first = pictures(model)
    assert first == pictures(model)
    assert first != pictures(model, seed=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_works_by_its_strength(tiny_model: TinyModel, tmp_path: Path, family: str) -> None:
    path = make_lora(family, tmp_path / "a.safetensors")
    plain, without, strong = (
        pictures(tiny_model(family), loras=tuple(LoraWeights(path, strength) for strength in strengths))
        for strengths in ((), (0.0,), (1.0,))
    )
    assert plain == without
    assert plain != strong


def test_several_loras_work_together(tiny_model: TinyModel, tmp_path: Path) -> None:
    one, two = (LoraWeights(make_lora("sd15", tmp_path / f"{seed}.safetensors", seed=seed), 1.0) for seed in (1, 2))
    model = tiny_model("sd15")
    assert len({str(pictures(model, loras=loras)) for loras in ((one,), (two,), (one, two))}) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_begun_with(tiny_model: TinyModel, cat: Path, family: str) -> None:
    """The less of it is drawn anew, the more of it is left."""
    little, much = (
        pictures(tiny_model(family), image=cat, steps=4, denoise=denoise, width=None, height=None)
        for denoise in (0.25, 1.0)
    )
    assert little is not None
    assert len(little[0]) == 64 * 64 * 3
    assert little != much


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_the_mask_leaves_open_is_drawn_anew(
    tiny_model: TinyModel, cat: Path, left_half: Path, family: str
) -> None:
    one, other = (
        pictures(tiny_model(family), image=cat, mask=left_half, steps=4, denoise=0.9, seed=seed) for seed in (1, 2)
    )
    assert one is not None
    assert other is not None
    seeds_differ = ImageChops.difference(
        *(Image.frombytes("RGB", (64, 64), content) for content in (one[0], other[0]))
    ).convert("L")
    drawn, kept = (ImageStat.Stat(seeds_differ.crop((left, 0, left + 32, 64))).mean[0] for left in (0, 32))
    assert drawn > 2 * kept


def test_as_many_pictures_as_asked_for(tiny_model: TinyModel) -> None:
    made = pictures(tiny_model("sd15"), count=2)
    assert made is not None
    assert len(set(made)) == 2


def test_every_step_is_heard_and_a_rendering_stops_after_one(tiny_model: TinyModel) -> None:
    heard: list[tuple[int, int]] = []

    def hear_and_stop(step: int, steps: int) -> bool:
        heard.append((step, steps))
        return step < 2

    model = tiny_model("sd15")
    request = PictureRequest(
        prompt="a cat", width=64, height=64, steps=3, guidance=5.0, seed=3, sampling=sampling_of("sd15", None, None)[0]
    )
    assert render(model, request, hear_and_stop) is None
    assert heard == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [*((sampler, "normal") for sampler in SAMPLERS), *(("dpmpp_2m", scheduler) for scheduler in SPACINGS)],
)
def test_every_sampler_and_scheduler_that_is_promised_runs(tiny_model: TinyModel, sampler: str, scheduler: str) -> None:
    sampling, warnings = sampling_of("sd15", sampler, scheduler)
    assert (sampling.sampler, sampling.scheduler, warnings) == (sampler, scheduler, [])
    assert pictures(tiny_model("sd15"), sampling=sampling, steps=3)
