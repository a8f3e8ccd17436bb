"""Train a LoRA on a few pictures with a hand-written way back through the linear layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinyflux.adapters import PREFIX, TARGET_SHAPES, Lora
from tinyflux.latents import pack
from tinyflux.linears import Adapter, Linears
from tinyflux.model import TinyFlux
from tinyflux.network import Inputs, backward, forward
from tinyflux.operations import F32
from tinyflux.preservation import Preservation
from tinyflux.schedules import training_levels
from tinyflux.text import TextConditioning, encode_words, prompt_words

# AI Toolkit's usual rate for FLUX; a model of a million weights learns at a hundred times that.
_USUAL_RATE, _OWN_RATE = 1e-4, 1e-2
_BETA_FIRST, _BETA_SECOND, _EPSILON = 0.9, 0.99, 1e-8
_WORD_DROPOUT = 0.3
# Each picture of a batch is seen at several noise levels at once: half the variance for less than twice the time.
_LEVELS_PER_PICTURE = 2
# Pictures are made with guidance: a LoRA that was trained without it hardly shows in them.
_HIGHEST_GUIDANCE = 4.0

TrainerState = dict[str, F32]


class LoraTrainer:
    """Train low-rank pairs on every linear layer of the blocks; the base never changes."""

    def __init__(
        self,
        model: TinyFlux,
        images: F32,
        captions: Sequence[str],
        *,
        rank: int,
        alpha: float | None = None,
        learning_rate: float = _USUAL_RATE,
        steps: int,
        batch_size: int = 2,
        seed: int = 42,
        trigger_word: str | None = None,
        resume: tuple[Lora, Mapping[str, F32]] | None = None,
        start_step: int = 0,
    ) -> None:
        """Take images (N, 32, 32, 3) in [-1, 1] with a caption each; steps is the run's length, for the falling rate.

        alpha has no effect: AI Toolkit sets it to the rank for FLUX, whose files have no alpha. Raise ValueError for
        arguments that do not fit.
        """
        if len(images) == 0 or len(images) != len(captions):
            raise ValueError(f"{len(images)} images with {len(captions)} captions; give one caption for each image")
        if rank < 1 or steps < 1 or batch_size < 1 or learning_rate <= 0.0:
            raise ValueError("rank, steps, batch_size and learning_rate must be above 0")
        self.rank, self.alpha, self.steps, self.step_number = rank, float(rank), steps, start_step
        self.learning_rate = learning_rate
        self._batch_size = batch_size
        self._latents = pack(images)
        self._trigger = prompt_words(trigger_word or "")
        self._captions = [self._without_trigger(prompt_words(caption)) for caption in captions]
        # A run that goes on draws other noise than its first part did, and the same each time.
        self._rng = np.random.RandomState([seed % 2**32, start_step])
        self._adapters = self._fresh_adapters()
        self._state: TrainerState = {}
        self._updates = 0
        if resume is not None:
            self._take_lora(resume[0])
            self.load_state(resume[1])
        self._linears = Linears(model.tensors, self._adapters)
        self._preservation = Preservation(model, self._captions, self._rng)

    @property
    def effective_learning_rate(self) -> float:
        """Return the rate of the coming step: AI Toolkit's times 100, falling in a line to the end of the run."""
        left = max(0.0, 1.0 - self.step_number / self.steps)
        return self.learning_rate * (_OWN_RATE / _USUAL_RATE) * left

    @property
    def lora(self) -> Lora:
        """Return the LoRA as it is now; later steps do not change it."""
        tensors: dict[str, F32] = {}
        for module, adapter in self._adapters.items():
            tensors[f"{PREFIX}{module}.lora_A.weight"] = adapter.down.copy()
            tensors[f"{PREFIX}{module}.lora_B.weight"] = adapter.up.copy()
        return Lora(tensors)

    def step(self) -> float:
        """Do one step and return its loss on the pictures."""
        latents, target, sigma, texts = self._batch()
        kept = self._preservation.draw()
        sigmas = np.concatenate([sigma, kept.sigma])
        inputs = Inputs.of(
            np.concatenate([latents, kept.latents]),
            sigmas,
            [*texts, *kept.texts],
            np.concatenate([self._guidance(len(texts)), kept.guidance]),
        )
        velocity, trace = forward(self._linears, inputs)
        wrong = velocity - np.concatenate([target, kept.velocity])
        count = len(texts)
        loss = float(np.square(wrong[:count]).mean())
        backward(self._linears, wrong * np.float32(2.0 / wrong[:count].size), trace)
        self._update()
        self._linears.merge()
        self.step_number += 1
        return loss

    def state(self) -> TrainerState:
        """Return what the optimizer remembers, as arrays that a safetensors file can hold."""
        copied = {key: value.copy() for key, value in self._state.items()}
        return {**copied, "step": np.array([self._updates], dtype=np.float32)}

    def load_state(self, state: Mapping[str, F32]) -> None:
        """Take up what `state` returned; raise ValueError where it belongs to another run."""
        for module, adapter in self._adapters.items():
            for half, value in (("down", adapter.down), ("up", adapter.up)):
                for moment in ("first", "second"):
                    found = state.get(f"{module}.{half}.{moment}")
                    if found is not None and found.shape != value.shape:
                        raise ValueError(f"the optimizer's state of {module} is {found.shape}, not {value.shape}")
        self._state = {key: np.array(value, dtype=np.float32) for key, value in state.items() if key != "step"}
        self._updates = int(state["step"].reshape(-1)[0]) if "step" in state else 0

    def _fresh_adapters(self) -> dict[str, Adapter]:
        adapters: dict[str, Adapter] = {}
        for module, (out_width, in_width) in TARGET_SHAPES.items():
            bound = in_width**-0.5
            down = self._rng.uniform(-bound, bound, (self.rank, in_width)).astype(np.float32)
            adapters[module] = Adapter.of(down, np.zeros((out_width, self.rank), dtype=np.float32), 1.0)
        return adapters

    def _take_lora(self, lora: Lora) -> None:
        for module in lora.modules:
            down, up, _ = lora.pair(module)
            adapter = self._adapters[module]
            if down.shape != adapter.down.shape:
                raise ValueError(f"the LoRA to go on from has rank {down.shape[0]}, this run has {self.rank}")
            self._adapters[module] = Adapter.of(down.copy(), up.copy(), 1.0)

    def _without_trigger(self, words: list[str]) -> list[str]:
        return [word for word in words if word not in self._trigger]

    def _batch(self) -> tuple[F32, F32, F32, list[TextConditioning]]:
        chosen = np.repeat(self._rng.randint(len(self._captions), size=self._batch_size), _LEVELS_PER_PICTURE)
        noise = self._rng.standard_normal((len(chosen), *self._latents.shape[1:])).astype(np.float32)
        sigma = training_levels(self._rng, len(chosen))
        share = sigma[:, None, None]
        pictures = self._latents[chosen]
        texts = [encode_words(self._trigger + self._thinned(self._captions[int(index)])) for index in chosen]
        noisy = noise * share
        noisy += pictures * (1.0 - share)
        return noisy, noise - pictures, sigma, texts

    def _guidance(self, count: int) -> F32:
        return self._rng.uniform(1.0, _HIGHEST_GUIDANCE, count).astype(np.float32)

    def _thinned(self, words: list[str]) -> list[str]:
        return [word for word in words if self._rng.random_sample() >= _WORD_DROPOUT]

    def _update(self) -> None:
        self._updates += 1
        rate = self.effective_learning_rate
        first_share, second_share = 1.0 - _BETA_FIRST**self._updates, 1.0 - _BETA_SECOND**self._updates
        size = np.float32(rate / first_share)
        for module, adapter in self._adapters.items():
            for half, value, grad in (("down", adapter.down, adapter.down_grad), ("up", adapter.up, adapter.up_grad)):
                first = self._moment(f"{module}.{half}.first", value)
                second = self._moment(f"{module}.{half}.second", value)
                first += np.float32(1.0 - _BETA_FIRST) * (grad - first)
                second += np.float32(1.0 - _BETA_SECOND) * (grad * grad - second)
                np.subtract(
                    value, size * first / (np.sqrt(second / np.float32(second_share)) + np.float32(_EPSILON)), out=value
                )
                grad.fill(0.0)

    def _moment(self, key: str, like: F32) -> F32:
        return self._state.setdefault(key, np.zeros_like(like))
