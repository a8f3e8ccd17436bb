"""Run one training: AI Toolkit's loop, with its log lines and files, over tinyflux."""

import json
import time
from pathlib import Path

import yaml
from tqdm import tqdm

from aitk_mcp.documents import TrainingDocument
from aitk_mcp.embedded.checkpoints import Checkpoints
from aitk_mcp.embedded.dataset import Dataset, load_datasets
from aitk_mcp.embedded.recipe import Recipe, read_recipe
from aitk_mcp.embedded.samples import draw_samples
from aitk_mcp.embedded.wishes import Wishes
from aitk_mcp.loss_log import FILE_NAME, LossLog, LossPoint
from tinyflux import LoraTrainer, TinyFlux, weights_path

# AI Toolkit's bar reacts to the last few steps.
_BAR_SMOOTHING = 0.7
_LOSS_FLUSH_S = 0.25


class TrainingProcess:
    """One training from a document, in a folder of its own."""

    def __init__(self, document: TrainingDocument, working_folder: Path, wishes: Wishes) -> None:
        """Print the config and write it to the output folder; raises Refused for what the engine cannot train."""
        print(json.dumps(dict(document.process), indent=4, default=str))
        self._document, self._working_folder, self._wishes = document, working_folder, wishes
        self._recipe: Recipe = read_recipe(document)
        self._folder = working_folder / document.training_folder / document.name
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "config.yaml").write_text(yaml.safe_dump(dict(document.raw)), encoding="utf-8")
        self._checkpoints = Checkpoints(self._folder, document, self._recipe)

    def run(self) -> None:
        """Train, save and sample; raises KeyboardInterrupt when stopped."""
        recipe = self._recipe
        print(f"\n#############################################\n# Running job: {self._document.name}")
        print("#############################################\n\n\nRunning  1 process")
        print(*recipe.notes, sep="\n")
        print(f"Loading base model {weights_path().name}")
        self._model = TinyFlux.load(weights_path())
        print(f"create LoRA network. base dim (rank): {recipe.rank}, alpha: {recipe.rank}")
        resumed = self._checkpoints.resume()
        self._dataset: Dataset = load_datasets(self._document, self._working_folder)
        self._start_step = min(resumed.step, recipe.steps) if resumed else 0
        self._first_epoch = resumed.epoch if resumed else 0
        self._trainer = LoraTrainer(
            self._model,
            self._dataset.images,
            self._dataset.captions,
            rank=recipe.rank,
            learning_rate=recipe.learning_rate,
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            trigger_word=self._document.trigger_word,
            resume=(resumed.lora, resumed.state) if resumed else None,
            start_step=self._start_step,
        )
        print(f"create LoRA for U-Net: {len(self._trainer.lora.modules)} modules.\nenable LoRA for U-Net")
        if recipe.sample.skip_first or not recipe.sample.prompts:
            print("Skipping first sample due to config setting")
        elif self._start_step <= 1:
            print("Generating baseline samples before training")
            self._sample(self._start_step)
        self._train()
        self._save(recipe.steps, final=True)
        self._sample(recipe.steps)
        print()

    def _train(self) -> None:
        recipe, wishes = self._recipe, self._wishes
        losses = LossLog(self._folder / FILE_NAME, self._start_step) if recipe.records_loss else None
        pending: list[LossPoint] = []
        flushed = time.monotonic()
        wishes.loop()
        try:
            with tqdm(
                total=recipe.steps, desc=self._document.name, initial=self._start_step, smoothing=_BAR_SMOOTHING
            ) as bar:
                for step in range(self._start_step, recipe.steps):
                    loss = self._trainer.step()
                    bar.set_postfix_str(f"lr: {recipe.learning_rate:.1e} loss: {loss:.3e}")
                    # AI Toolkit neither saves, samples nor records at the step that it starts with.
                    if step != self._start_step:
                        self._mark(step)
                        pending.append(LossPoint(step, loss, recipe.learning_rate, time.time()))
                    if losses and time.monotonic() - flushed >= _LOSS_FLUSH_S:
                        losses.add(pending)
                        pending, flushed = [], time.monotonic()
                    bar.update()
                    if wishes.save:
                        wishes.save = False
                        print(f"\nSaving at step {step + 1}")
                        self._save(step + 1)
                    if wishes.sample:
                        wishes.sample = False
                        print(f"\nSampling at step {step + 1}")
                        self._sample(step + 1)
                    if wishes.stop:
                        raise KeyboardInterrupt
        finally:
            if losses:
                losses.add(pending)
                losses.close()
        wishes.work()

    def _mark(self, step: int) -> None:
        """Save and sample where the config wants it at this step."""
        save, sample = self._recipe.save, self._recipe.sample
        if save.every and step % save.every == 0:
            print(f"\nSaving at step {step}")
            self._save(step)
        if sample.every and step >= sample.start_step and step % sample.every == 0 and sample.prompts:
            print(f"\nSampling at step {step}")
            self._sample(step)

    def _save(self, step: int, *, final: bool = False) -> None:
        seen = (step - self._start_step) * self._recipe.batch_size
        epoch = self._first_epoch + seen // len(self._dataset.captions)
        self._checkpoints.save(self._trainer.lora, self._trainer.state(), step=step, epoch=epoch, final=final)

    def _sample(self, step: int) -> None:
        if self._recipe.sample.prompts:
            model = self._model.with_loras([(self._trainer.lora, 1.0)])
            draw_samples(model, self._recipe.sample, self._folder / "samples", step)
