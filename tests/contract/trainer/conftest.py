"""The trainers that the same tests run against: the embedded one, AI Toolkit's command line and its server.

The last two are stand-ins that train with the embedded one, or the real ones where AITK_DIR or AITK_UI_URL are set.
"""

import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from anyio import to_thread
from PIL import Image, ImageDraw
from pydantic import SecretStr

from aitk_mcp.configs.configs import Configs
from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.trainers.cli import CliTrainer, CommandLine
from aitk_mcp.trainers.job_folders import JobFolders
from aitk_mcp.trainers.port import Trainer
from aitk_mcp.trainers.run_folder import RunFolder
from aitk_mcp.trainers.ui import UiTrainer
from aitk_mcp.trainers.ui_http import UiHttp
from aitk_mcp.trainers.ui_jobs import UiJobs
from aitk_mcp.training.jobs import TrainingJobs
from aitk_mcp.training.reports import TrainingReport
from tests.fakes.aitk_ui import FakeAitkUi

# What an AI Toolkit checkout looks like from outside: a run.py that is started in its own folder.
STAND_IN = f"""
import sys
sys.path[:0] = {[path for path in sys.path if path]!r}
from aitk_mcp.embedded.run import main
sys.exit(main())
"""
COMMAND_LINES = ["embedded", "cli", *(["ai-toolkit"] if os.environ.get("AITK_DIR") else [])]
SERVERS = ["ui", *(["ai-toolkit-ui"] if os.environ.get("AITK_UI_URL") else [])]
# The real program imports packages for half a minute before it trains.
PATIENCE_S = 600 if {"AITK_DIR", "AITK_UI_URL"} & set(os.environ) else 120
ENDLESS = 100_000


@dataclass
class Workshop(ABC):
    """A trainer with everything around it, on disk under `root`."""

    engine: str
    root: Path

    @property
    @abstractmethod
    def trainer(self) -> Trainer:
        """Return a trainer over the jobs of this workshop: a new one is what a restarted server has."""

    @abstractmethod
    async def trainer_pid(self, job_id: str) -> int:
        """Return the process that trains a job."""

    @property
    def saves_on_demand(self) -> bool:
        """Tell whether this trainer can be asked to save."""
        return self.trainer.can_save

    @property
    def saves_as_it_stops(self) -> bool:
        """Tell whether a stop that saves first loses no step."""
        return self.saves_on_demand

    @property
    def configs(self) -> Configs:
        """Return the configs of this workshop."""
        datasets = Datasets(self.root / "datasets")
        return Configs(self.root / "configs", outputs=self.root / "output", datasets=datasets, engine=self.engine)

    @property
    def jobs(self) -> TrainingJobs:
        """Return the jobs as a server that has just been started sees them."""
        return TrainingJobs(self.trainer, self.configs)

    def output(self, name: str) -> Path:
        """Return the output folder of a job."""
        return self.root / "output" / name

    def config(self, name: str, *, steps: int, **changes: Any) -> str:
        """Write a config under its name and return that; `changes` go into the blocks of the process."""
        process: dict[str, Any] = {
            "type": "diffusion_trainer",
            "training_folder": str(self.root / "output"),
            "device": "cpu" if self.engine == "embedded" else "cuda",
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
                # Without one, AI Toolkit fails at the first picture of SD 1.5.
                "neg": "",
                "seed": 42,
                "guidance_scale": 4,
                "sample_steps": 2,
            },
        }
        if os.environ.get("AITK_MODEL") and self.engine.startswith("ai-toolkit"):
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


@dataclass
class CommandLineWorkshop(Workshop):
    """A trainer that is a command line."""

    command_line: CommandLine

    @property
    def trainer(self) -> CliTrainer:
        return CliTrainer(self.command_line, self.root / "jobs")

    async def run(self, job_id: str) -> RunFolder:
        """Return the files of a job's latest run."""
        return await to_thread.run_sync(lambda: JobFolders(self.root / "jobs").find(job_id).run)

    async def trainer_pid(self, job_id: str) -> int:
        trainer = await to_thread.run_sync((await self.run(job_id)).trainer)
        assert trainer is not None
        return trainer.pid


@dataclass
class UiWorkshop(Workshop):
    """A trainer that is AI Toolkit's server."""

    http: UiHttp

    @property
    def trainer(self) -> UiTrainer:
        return UiTrainer(self.http, self.root / "ui-jobs")

    @property
    def saves_as_it_stops(self) -> bool:
        # It saves, trains on, and is stopped a moment later.
        return False

    async def trainer_pid(self, job_id: str) -> int:
        pid = (await UiJobs(self.http).find(job_id)).pid
        assert pid is not None
        return pid


@pytest.fixture
def fake_ui(tmp_path: Path) -> Generator[FakeAitkUi]:
    """Give a stand-in for AI Toolkit's server."""
    fake = FakeAitkUi(tmp_path)
    with fake.serving():
        yield fake


@pytest.fixture
def ui_workshop(fake_ui: FakeAitkUi, tmp_path: Path) -> UiWorkshop:
    """Give a workshop over that stand-in."""
    return UiWorkshop("ui", tmp_path, UiHttp(fake_ui.url))


@pytest.fixture(params=COMMAND_LINES)
def command_line_workshop(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[CommandLineWorkshop]:
    """Give a trainer of each kind that is a command line, and end what it still trains when the test is over."""
    with command_line_shop(request.param, tmp_path) as found:
        yield found


@pytest.fixture(params=[*COMMAND_LINES, *SERVERS])
def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Workshop]:
    """Give a trainer of each kind, and end what it still trains when the test is over."""
    match request.param:
        case "ui":
            yield request.getfixturevalue("ui_workshop")
        case "ai-toolkit-ui":
            with real_ui_shop() as found:
                yield found
        case engine:
            with command_line_shop(engine, tmp_path) as found:
                yield found


@contextmanager
def command_line_shop(engine: str, root: Path) -> Generator[CommandLineWorkshop]:
    """Give a workshop over a command line, and end what it still trains."""
    command_lines: dict[str, Callable[[], CommandLine]] = {
        "embedded": lambda: CommandLine.embedded(root),
        "cli": lambda: stand_in(root),
        "ai-toolkit": lambda: CommandLine.ai_toolkit(Path(os.environ["AITK_DIR"])),
    }
    yield CommandLineWorkshop(engine, root, command_lines[engine]())
    for job in JobFolders(root / "jobs").all():
        job.run.send(signal.SIGKILL)


@contextmanager
def real_ui_shop() -> Generator[UiWorkshop]:
    """Give a workshop over the real server, and delete the jobs that it ordered."""
    token = os.environ.get("AI_TOOLKIT_AUTH")
    http = UiHttp(os.environ["AITK_UI_URL"], SecretStr(token) if token else None)
    folders = anyio.run(http.folders)
    before = {row.job_id for row in anyio.run(UiJobs(http).all)}
    # `output` and `datasets` are where it keeps them unless it was told otherwise.
    yield UiWorkshop("ai-toolkit-ui", Path(folders.training).parent, http)

    async def clean() -> None:
        for row in await UiJobs(http).all():
            if row.job_id not in before:
                if row.is_active:
                    await UiJobs(http).change(row.job_id, "stop" if row.status == "running" else "mark_stopped")
                await http.get(f"/api/jobs/{row.job_id}/delete")

    anyio.run(clean)


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
