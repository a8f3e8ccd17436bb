"""The trainers that the same tests run against: the embedded one, AI Toolkit's command line, the real AI Toolkit."""

import os
import signal
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from anyio import to_thread
from PIL import Image, ImageDraw

from aitk_mcp.configs import Configs
from aitk_mcp.datasets import Datasets
from aitk_mcp.trainers.cli import CliTrainer, CommandLine
from aitk_mcp.trainers.job_folders import JobFolders
from aitk_mcp.trainers.run_folder import RunFolder
from aitk_mcp.training import TrainingJobs
from aitk_mcp.training_reports import TrainingReport

# What an AI Toolkit checkout looks like from outside: a run.py that is started in its own folder.
STAND_IN = f"""
import sys
sys.path[:0] = {[path for path in sys.path if path]!r}
from aitk_mcp.embedded.run import main
sys.exit(main())
"""
REAL = ["ai-toolkit"] if os.environ.get("AITK_DIR") else []
PATIENCE_S = 120
ENDLESS = 100_000


@dataclass
class Workshop:
    """A trainer with everything around it, on disk under `root`."""

    engine: str
    root: Path
    command_line: CommandLine

    @property
    def trainer(self) -> CliTrainer:
        """Return a trainer over the jobs of this workshop: a new one is what a restarted server has."""
        return CliTrainer(self.command_line, self.root / "jobs")

    @property
    def configs(self) -> Configs:
        """Return the configs of this workshop."""
        datasets = Datasets(self.root / "datasets")
        return Configs(self.root / "configs", outputs=self.root / "output", datasets=datasets, engine=self.engine)

    @property
    def jobs(self) -> TrainingJobs:
        """Return the jobs as a server that has just been started sees them."""
        return TrainingJobs(self.trainer, self.configs)

    @property
    def saves_on_demand(self) -> bool:
        """Tell whether this trainer can be asked to save."""
        return self.command_line.saves_on_signal

    async def run(self, job_id: str) -> RunFolder:
        """Return the files of a job's latest run."""
        return await to_thread.run_sync(lambda: JobFolders(self.root / "jobs").find(job_id).run)

    async def trainer_pid(self, job_id: str) -> int:
        """Return the process that trains a job."""
        trainer = await to_thread.run_sync((await self.run(job_id)).trainer)
        assert trainer is not None
        return trainer.pid

    def output(self, name: str) -> Path:
        """Return the output folder of a job."""
        return self.root / "output" / name

    def config(self, name: str, *, steps: int, **changes: Any) -> str:
        """Write a config under its name and return that; `changes` go into the blocks of the process."""
        process: dict[str, Any] = {
            "type": "diffusion_trainer",
            "training_folder": str(self.root / "output"),
            "device": "cuda" if self.engine == "cli" else "cpu",
            "trigger_word": "pixcat",
            "network": {"type": "lora", "linear": 4, "linear_alpha": 4},
            "save": {"dtype": "float16", "save_every": 5, "max_step_saves_to_keep": 2},
            "datasets": [{"folder_path": str(self.dataset()), "caption_ext": "txt", "resolution": [64]}],
            "train": {"batch_size": 1, "steps": steps, "lr": 1e-4, "skip_first_sample": True, "dtype": "fp32"},
            "logging": {"log_every": 1, "use_ui_logger": True},
            "model": {"name_or_path": "tinyflux", "arch": "flux"},
            "sample": {
                "sample_every": 10,
                "width": 64,
                "height": 64,
                "samples": [{"prompt": "[trigger] in snow"}],
                "seed": 42,
                "guidance_scale": 4,
                "sample_steps": 2,
            },
        }
        if os.environ.get("AITK_MODEL") and self.engine == "ai-toolkit":
            process["model"] = {"name_or_path": os.environ["AITK_MODEL"], "arch": "sd15"}
        for block, values in changes.items():
            process[block].update(values)
        document = {"job": "extension", "config": {"name": name, "process": [process]}, "meta": {"name": "[name]"}}
        folder = self.root / "configs"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
        return name

    def dataset(self) -> Path:
        """Return a folder of three small pictures with captions."""
        folder = self.root / "datasets" / "cats"
        if not folder.exists():
            folder.mkdir(parents=True)
            for index in range(3):
                picture = Image.new("RGB", (64, 64), (60 * index, 120, 200))
                ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=(20, 200, 160))
                picture.save(folder / f"{index}.png")
                (folder / f"{index}.txt").write_text(f"pixcat, a teal cat, picture {index}")
        return folder


@pytest.fixture(params=["embedded", "cli", *REAL])
def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Workshop]:
    """Give a trainer of each kind, and end what it still trains when the test is over."""
    command_lines: dict[str, Callable[[], CommandLine]] = {
        "embedded": lambda: CommandLine.embedded(tmp_path),
        "cli": lambda: stand_in(tmp_path),
        "ai-toolkit": lambda: CommandLine.ai_toolkit(Path(os.environ["AITK_DIR"])),
    }
    found = Workshop(request.param, tmp_path, command_lines[request.param]())
    yield found
    for job in JobFolders(tmp_path / "jobs").all():
        job.run.send(signal.SIGKILL)


def stand_in(root: Path) -> CommandLine:
    """Return the command line of a folder that looks like an AI Toolkit checkout."""
    checkout = root / "ai-toolkit"
    checkout.mkdir()
    (checkout / "run.py").write_text(STAND_IN)
    return CommandLine.ai_toolkit(checkout, Path(sys.executable))


async def reaches(jobs: TrainingJobs, job_id: str, there: Callable[[TrainingReport], bool]) -> TrainingReport:
    """Wait until a job is where `there` says."""
    with anyio.fail_after(PATIENCE_S):
        while not there(report := await jobs.wait(job_id, 0.05)):
            assert not report.has_ended, report
    return report


async def ends(jobs: TrainingJobs, job_id: str) -> TrainingReport:
    """Wait for the end of a job."""
    report = await jobs.wait(job_id, PATIENCE_S)
    assert report.has_ended, report
    return report


async def trains(jobs: TrainingJobs, job_id: str) -> TrainingReport:
    """Wait until a job has trained past its first checkpoint."""
    return await reaches(jobs, job_id, lambda report: report.phase == "training" and report.step >= 6)
