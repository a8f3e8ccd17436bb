"""The hand-written way back is right, and a short run learns, stops and goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tinyflux import (
    TARGET_SHAPES,
    Lora,
    LoraTrainer,
    TinyFlux,
    encode_prompt,
    from_bytes,
    sample_dataset_path,
    seeded_noise,
)
from tinyflux.linears import Adapter, Linears
from tinyflux.network import Inputs, backward, forward

F32 = NDArray[np.float32]


def dataset() -> tuple[F32, list[str]]:
    """Read the sample dataset at 32 x 32."""
    paths = sorted(sample_dataset_path().glob("*.png"))
    size = (32, 32)
    pictures = [np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BOX)) for path in paths]
    captions = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in paths]
    return from_bytes(np.stack(pictures)), captions


def trainer(model: TinyFlux, steps: int = 60, rank: int = 8) -> LoraTrainer:
    """Start a run on the sample dataset."""
    images, captions = dataset()
    return LoraTrainer(model, images, captions, rank=rank, steps=steps, trigger_word="pixel_cat")


@pytest.mark.parametrize("module", TARGET_SHAPES)
def test_gradients_agree_with_finite_differences(model: TinyFlux, module: str) -> None:
    rng = np.random.RandomState(sum(module.encode()))
    out_width, in_width = TARGET_SHAPES[module]
    # Double precision, since a difference of two losses would drown in the rounding of float32.
    down: NDArray[Any] = rng.normal(0.0, 0.1, (2, in_width))
    up: NDArray[Any] = rng.normal(0.0, 0.1, (out_width, 2))
    adapter = Adapter.of(down, up, 0.5)
    tensors: dict[str, NDArray[Any]] = {name: tensor.astype(np.float64) for name, tensor in model.tensors.items()}
    linears = Linears(tensors, {module: adapter})
    text = [encode_prompt("pixel_cat, a cat in the snow"), encode_prompt("ball")]
    inputs = Inputs.of(seeded_noise(3, batch=2), np.array([0.4, 0.9], np.float32), text, 2.0)
    target: NDArray[Any] = rng.standard_normal((2, 64, 48))

    def loss(values: NDArray[Any], moved: NDArray[Any]) -> float:
        values += moved
        linears.merge()
        values -= moved
        return float(0.5 * np.square(forward(linears, inputs)[0] - target).sum())

    velocity, trace = forward(linears, inputs)
    backward(linears, velocity - target, trace)
    for values, grad in ((adapter.down, adapter.down_grad), (adapter.up, adapter.up_grad)):
        direction: NDArray[Any] = rng.standard_normal(values.shape)
        step = 1e-5
        slope = (loss(values, step * direction) - loss(values, -step * direction)) / (2 * step)
        assert float((grad * direction).sum()) == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_a_short_run_lowers_the_loss_and_leaves_the_base_alone(model: TinyFlux) -> None:
    before = {name: tensor.copy() for name, tensor in model.tensors.items()}
    run = trainer(model)
    losses = [run.step() for _ in range(60)]
    assert float(np.mean(losses[-20:])) < 0.95 * float(np.mean(losses[:20]))
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(tensor, before[name])
    assert run.lora.rank == 8
    assert len(run.lora.tensors) == 2 * len(TARGET_SHAPES)


def test_the_same_seed_gives_the_same_run(model: TinyFlux) -> None:
    first, second = trainer(model), trainer(model)
    assert [first.step() for _ in range(3)] == pytest.approx([second.step() for _ in range(3)], rel=1e-4)


def test_the_rate_is_ai_toolkits_times_a_hundred_and_falls_to_zero(model: TinyFlux) -> None:
    run = trainer(model, steps=4)
    rates: list[float] = []
    for _ in range(4):
        rates.append(run.effective_learning_rate)
        run.step()
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert run.effective_learning_rate == 0.0


def test_a_run_goes_on_from_its_file_and_state(model: TinyFlux, tmp_path: Path) -> None:
    images, captions = dataset()
    first = trainer(model, steps=20)
    for _ in range(10):
        first.step()
    path = tmp_path / "cat.safetensors"
    first.lora.save(path, {}, np.float32)
    second = LoraTrainer(
        model,
        images,
        captions,
        rank=8,
        steps=20,
        trigger_word="pixel_cat",
        resume=(Lora.load(path), first.state()),
        start_step=10,
    )
    assert second.step_number == 10
    assert second.effective_learning_rate == pytest.approx(0.005)
    for key, tensor in first.lora.tensors.items():
        np.testing.assert_array_equal(second.lora.tensors[key], tensor)
    assert int(second.state()["step"][0]) == 10
    second.step()
    assert int(second.state()["step"][0]) == 11
    assert int(first.state()["step"][0]) == 10


def test_what_belongs_to_another_run_is_refused(model: TinyFlux) -> None:
    images, captions = dataset()
    other = trainer(model, rank=4)
    other.step()
    with pytest.raises(ValueError, match="rank 4, this run has 8"):
        LoraTrainer(model, images, captions, rank=8, steps=5, resume=(other.lora, other.state()))
    with pytest.raises(ValueError, match="optimizer's state"):
        trainer(model, rank=8).load_state(other.state())


def test_arguments_that_do_not_fit_are_refused(model: TinyFlux) -> None:
    images, captions = dataset()
    with pytest.raises(ValueError, match="12 images with 11 captions"):
        LoraTrainer(model, images, captions[1:], rank=4, steps=5)
    with pytest.raises(ValueError, match="above 0"):
        LoraTrainer(model, images, captions, rank=0, steps=5)
