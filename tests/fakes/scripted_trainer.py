"""A trainer without a process, which does one thing at each call, however busy the machine is.

It writes what the real one writes: log, losses, checkpoints and samples, in the same words and under the same names.
"""

import json
import re
import signal
from itertools import count
from pathlib import Path
from typing import Any

from aitk_mcp.loss_log import FILE_NAME, LossLog, LossPoint

_PIDS = count(4_500_000)
_STEP = re.compile(rb'\\"step\\": (\d+)')
_RULE = "=" * 40


class ScriptedTrainer:
    """Train by a config file, one step at each `go_on`."""

    def __init__(self, config: Path, log: Path) -> None:
        """Take the files that the worker wrote, and where the output goes."""
        document: Any = json.loads(config.read_text())
        self.pid = next(_PIDS)
        self._name = document["config"]["name"]
        self._process = document["config"]["process"][0]
        self._log = log
        self._folder = Path(self._process["training_folder"]) / self._name
        self._steps = int(self._process["train"]["steps"])
        self._step: int | None = None
        self._stage = 0
        self._asked: set[int] = set()
        self._returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, None while it has not."""
        return self._returncode

    def wait(self) -> int | None:
        """Return how it ended."""
        return self._returncode

    def kill(self) -> None:
        """End at once."""
        if self._returncode is None:
            self._returncode = -signal.SIGKILL

    def send_signal(self, number: int) -> None:
        """Hear a signal at the next step."""
        self._asked.add(number)

    def go_on(self) -> None:
        """Do the next thing: load, train a step, save, sample, end."""
        if self._returncode is not None:
            return
        if signal.SIGINT in self._asked:
            self._write(f"\n{_RULE}\nJob stopped\n{_RULE}\n")
            self._returncode = 0
        elif self._step is None:
            self._load()
        elif signal.SIGUSR1 in self._asked:
            self._asked.discard(signal.SIGUSR1)
            self._save(f"{self._name}_{self._step:09d}")
        elif signal.SIGUSR2 in self._asked:
            self._asked.discard(signal.SIGUSR2)
            self._sample()
        elif self._step < self._steps:
            self._train()
        else:
            self._save(self._name)
            self._sample()
            self._returncode = 0

    def _load(self) -> None:
        self._stage += 1
        model = self._process["model"]["name_or_path"]
        folders = [dataset["folder_path"] for dataset in self._process["datasets"]]
        missing = next((folder for folder in folders if not Path(folder).is_dir()), None)
        if self._stage == 1:
            self._write("Running 1 job\n")
        elif self._stage == 2:
            self._write("Running  1 process\nLoading Model\n")
        elif self._stage == 3 and model.startswith("/nope"):
            self._fail(
                f'The provided pretrained_model_name_or_path "{model}" is neither a valid local path nor a valid repo'
                " id. Please check the parameter."
            )
        elif self._stage == 3:
            self._write(f"Dataset: {folders[0]}\n")
        elif missing is not None:
            self._fail(f"[Errno 2] No such file or directory: '{missing}'")
        else:
            self._step = self._resumed()
            self._frame()

    def _train(self) -> None:
        assert self._step is not None
        self._step += 1
        self._folder.mkdir(parents=True, exist_ok=True)
        losses = LossLog(self._folder / FILE_NAME, self._step - 1)
        losses.add([LossPoint(self._step, 1 / self._step, 1e-4, 1_795_227_600.0 + self._step)])
        losses.close()
        self._frame()
        if self._step % int(self._process["save"]["save_every"]) == 0 and self._step < self._steps:
            self._save(f"{self._name}_{self._step:09d}")

    def _frame(self) -> None:
        done, total = self._step or 0, self._steps
        share = f"{100 * done // total:3d}%|{'█' * (10 * done // total):10}| {done}/{total}"
        self._write(f"\r{self._name}: {share} [00:{done % 60:02d}<00:10,  1.40s/it, lr: 1.0e-04 loss: 1.188e+00]")

    def _save(self, stem: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._write(f"\nSaving at step {self._step}\n")
        header = json.dumps(
            {
                "__metadata__": {"training_info": json.dumps({"step": self._step, "epoch": 1})},
                "lora.weight": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
            }
        ).encode()
        content = len(header).to_bytes(8, "little") + header + b"\0\0"
        (self._folder / f"{stem}.safetensors").write_bytes(content)
        (self._folder / "optimizer.pt").write_bytes(b"state")
        self._write(f"Saved checkpoint to {self._folder}/{stem}.safetensors\n")

    def _sample(self) -> None:
        folder = self._folder / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        self._write("\nGenerating Images: 100%|██████████| 1/1 [00:01<00:00,  1.00it/s]\n")
        (folder / f"{1_795_227_600_000 + (self._step or 0)}__{self._step:09d}_0.jpg").write_bytes(b"jpeg")

    def _resumed(self) -> int:
        saved = [path.read_bytes() for path in self._folder.glob(f"{self._name}*.safetensors")]
        return max((int(found[1]) for content in saved if (found := _STEP.search(content))), default=0)

    def _fail(self, reason: str) -> None:
        self._write(f"Error running job: {reason}\n")
        self._returncode = 1

    def _write(self, text: str) -> None:
        # A job that was deleted while it runs makes its folder anew.
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as log:
            log.write(text)
