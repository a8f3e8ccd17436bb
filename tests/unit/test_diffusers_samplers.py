"""Samplers and schedulers of ComfyUI, in the words of diffusers."""

import pytest

from comfy_mcp.engines.diffusers_samplers import sampling_of


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_usual_ones_have_an_equal(family: str) -> None:
    for sampler, class_name in (
        (None, "DPMSolverMultistepScheduler"),
        ("euler", "EulerDiscreteScheduler"),
        ("euler_ancestral", "EulerAncestralDiscreteScheduler"),
        ("uni_pc", "UniPCMultistepScheduler"),
    ):
        sampling, warnings = sampling_of(family, sampler, None)
        assert sampling.class_name == class_name
        assert warnings == []
    sampling, _ = sampling_of(family, "dpmpp_2m_sde", "karras")
    assert sampling.settings == {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}


@pytest.mark.parametrize(
    ("sampler", "scheduler", "taken", "word"),
    [
        ("dpmpp_3m", "normal", ("dpmpp_2m", "normal"), "`sampler` dpmpp_3m"),
        ("euler", "kl_optimal", ("euler", "normal"), "`scheduler` kl_optimal"),
        ("ddim", "karras", ("ddim", "normal"), "`scheduler` karras"),
    ],
)
def test_what_has_no_equal_is_replaced_aloud(sampler: str, scheduler: str, taken: tuple[str, str], word: str) -> None:
    sampling, [warning] = sampling_of("sdxl", sampler, scheduler)
    assert (sampling.sampler, sampling.scheduler) == taken
    assert word in warning
    assert "no equal" in warning


def test_flux_has_one_way_to_sample() -> None:
    sampling, warnings = sampling_of("flux", "heunpp2", "beta")
    assert (sampling.sampler, sampling.scheduler, sampling.class_name) == ("euler", "simple", None)
    assert ["`sampler` heunpp2" in warnings[0], "`scheduler` beta" in warnings[1]] == [True, True]
    assert sampling_of("flux", None, None)[1] == []
