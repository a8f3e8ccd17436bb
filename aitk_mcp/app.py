"""The only place where the objects of aitk_mcp are built."""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread
from starlette.applications import Starlette
from starlette.routing import Route

from aitk_mcp.configs.configs import Configs
from aitk_mcp.configs.plan_steps import PlanSteps
from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.datasets.port import DatasetHome
from aitk_mcp.datasets.remote import RemoteDatasets
from aitk_mcp.datasets.routes import dataset_routes, remote_dataset_routes
from aitk_mcp.datasets.zip_uploads import ZipUploads
from aitk_mcp.documents import TrainingDocument
from aitk_mcp.embedded.recipe import refusal
from aitk_mcp.late_server import LateServer
from aitk_mcp.models.digests import Digests
from aitk_mcp.models.links import Links
from aitk_mcp.models.models import Models
from aitk_mcp.models.port import ModelHome
from aitk_mcp.models.remote import RemoteModels
from aitk_mcp.models.routes import model_routes, remote_model_routes
from aitk_mcp.settings import AitkSettings
from aitk_mcp.system import read_ui_stats
from aitk_mcp.tools.about_training import about_training_tools
from aitk_mcp.tools.configs import config_tools
from aitk_mcp.tools.dataset_check import dataset_check_tools
from aitk_mcp.tools.dataset_import import dataset_import_tools
from aitk_mcp.tools.datasets import dataset_tools
from aitk_mcp.tools.estimates import estimate_tools
from aitk_mcp.tools.models import model_tools
from aitk_mcp.tools.plan_steps import plan_step_tools
from aitk_mcp.tools.system import system_tools
from aitk_mcp.tools.training import training_tools
from aitk_mcp.tools.training_routes import training_routes
from aitk_mcp.trainers.cli import CliTrainer, CommandLine
from aitk_mcp.trainers.port import Trainer
from aitk_mcp.trainers.ui import UiTrainer
from aitk_mcp.trainers.ui_http import DEFAULT_URL, UiHttp
from aitk_mcp.training.dataset_users import jobs_using
from aitk_mcp.training.estimates import Estimates
from aitk_mcp.training.jobs import TrainingJobs
from aitk_mcp.training.loss_plots import LossPlots
from aitk_mcp.training.run_history import RunHistory
from aitk_mcp.ui_choice import find_place, ui_state
from mcp_toolserver import __version__
from mcp_toolserver.app import BackendState, ServerIdentity, ToolServer, create_server_app, door_policy
from mcp_toolserver.errors import ToolError
from mcp_toolserver.files import make_folder
from mcp_toolserver.tools import AnyTool, Toolbox
from mcp_toolserver.uploads.tus import tus_routes

log = logging.getLogger(__name__)

_INSTRUCTIONS = (
    "Trains LoRAs with AI Toolkit. `upload-dataset` stores images with captions; `create-training-config` makes the "
    "document and warns of what may fail; `start-training` answers at once with a job_id, and `wait-training` waits "
    "for it without losing anything. `list-exported-models` and `download-model` have the result."
)
_VERSION = re.compile(r"VERSION\s*=\s*[\"']([^\"']+)[\"']")


def build(settings: AitkSettings) -> ToolServer:
    """Build the server's objects; nothing is started or written before its lifespan begins."""
    if settings.engine != "ui" and not settings.looks_for_a_server:
        return _assemble(settings)
    # Which folders are used is AI Toolkit's to say, and it may not answer yet.
    choose = partial(_with_ui if settings.engine == "ui" else _with_ui_or_without, settings)
    return LateServer(_assemble(settings), settings.engine, choose).server()


async def _with_ui(settings: AitkSettings) -> ToolServer:
    """Build a server over AI Toolkit's own; raises BackendUnavailable or BackendRejected."""
    place = await find_place(_ui(settings), settings.ui_disk)
    chosen = {"trainer": "ui", "datasets_dir": place.datasets, "outputs_dir": place.outputs}
    return await to_thread.run_sync(_assemble, settings.model_copy(update=chosen), not place.is_here)


async def _with_ui_or_without(settings: AitkSettings) -> ToolServer:
    try:
        return await _with_ui(settings)
    except ToolError as error:
        log.info("AI Toolkit's server is not used", extra={"engine": settings.engine, "reason": error.message})
        return await to_thread.run_sync(_assemble, settings)


def _assemble(settings: AitkSettings, is_remote: bool = False) -> ToolServer:
    is_embedded = settings.engine == "embedded"
    refused: Callable[[TrainingDocument], str | None] = refusal if is_embedded else _nothing_refused
    trainer = _trainer(settings, is_remote)
    disk = (_remote_disk if is_remote else _own_disk)(settings, trainer)
    datasets, models = disk.datasets, disk.models
    zip_uploads = ZipUploads(settings.data_dir / "uploads")
    configs = Configs(
        settings.data_dir / "configs",
        outputs=settings.outputs_folder,
        datasets=datasets,
        engine=settings.engine,
        refusal=refused,
    )
    jobs = TrainingJobs(trainer, configs, refused)
    plots = LossPlots(settings.data_dir / "cache" / "matplotlib")

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        await to_thread.run_sync(make_folder, settings.data_dir)
        await datasets.recover()
        async with jobs.watching():
            yield

    return ToolServer(
        identity=ServerIdentity(
            name="aitk_mcp", title="LoRA Loop: AI Toolkit", version=__version__, instructions=_INSTRUCTIONS
        ),
        toolbox=Toolbox(
            [
                *dataset_tools(datasets),
                *dataset_check_tools(datasets),
                *dataset_import_tools(datasets, settings.import_roots, zip_uploads),
                *config_tools(configs),
                *plan_step_tools(configs, PlanSteps(configs, datasets)),
                *estimate_tools(Estimates(configs, RunHistory(jobs, settings.outputs_folder))),
                *training_tools(jobs, plots),
                *about_training_tools(configs, jobs, models),
                *model_tools(models, jobs, Links(trainer)),
                disk.system_tool,
            ]
        ),
        backend=_backend(settings),
        routes=[
            *training_routes(jobs, plots),
            *disk.routes,
            *tus_routes(zip_uploads, public_url=settings.public_url),
        ],
        lifespan=lifespan,
    )


@dataclass(frozen=True)
class _Disk:
    """What depends on whether the trainer's disk is this machine's."""

    datasets: DatasetHome
    models: ModelHome
    system_tool: AnyTool
    routes: list[Route]


def _own_disk(settings: AitkSettings, trainer: Trainer) -> _Disk:
    datasets = Datasets(settings.datasets_folder, partial(jobs_using, trainer))
    models = Models(settings.outputs_folder, _digests(settings))
    folders = {"datasets": settings.datasets_folder, "outputs": settings.outputs_folder, "jobs": settings.data_dir}
    (system_tool,) = system_tools(settings.engine, folders)
    return _Disk(datasets, models, system_tool, [*model_routes(models), *dataset_routes(datasets)])


def _remote_disk(settings: AitkSettings, trainer: Trainer) -> _Disk:
    http = _ui(settings)
    using = partial(jobs_using, trainer)
    datasets = RemoteDatasets(http, settings.datasets_folder, _copies(settings), using)
    exports = Models(settings.data_dir / "exports", _digests(settings))
    models = RemoteModels(http, settings.outputs_folder, exports)
    (system_tool,) = system_tools(settings.engine, {}, lambda folders: read_ui_stats(http))
    return _Disk(datasets, models, system_tool, [*remote_model_routes(models), *remote_dataset_routes(datasets)])


def _copies(settings: AitkSettings) -> Path:
    # Emptied at each start.
    return settings.data_dir / "copies"


def _digests(settings: AitkSettings) -> Digests:
    return Digests(settings.data_dir / "cache" / "digests.sqlite")


def create_app(settings: AitkSettings) -> Starlette:
    """Build a new app; an app runs once."""
    return create_server_app(build(settings), door_policy(settings), settings.public_url)


def _trainer(settings: AitkSettings, is_remote: bool) -> Trainer:
    if settings.engine == "ui":
        notes, copies = settings.data_dir / "ui-jobs", _copies(settings) / "pictures" if is_remote else None
        return UiTrainer(_ui(settings), notes, default_gpu_ids=settings.gpu_ids, copies=copies)
    return CliTrainer(_command_line(settings), settings.data_dir / "jobs", default_gpu_ids=settings.gpu_ids)


def _ui(settings: AitkSettings) -> UiHttp:
    return UiHttp(settings.ui_url or DEFAULT_URL, settings.ui_token)


def _command_line(settings: AitkSettings) -> CommandLine:
    if settings.engine == "cli" and settings.aitk_dir is not None:
        return CommandLine.ai_toolkit(settings.aitk_dir, settings.aitk_python)
    return CommandLine.embedded(settings.data_dir)


def _backend(settings: AitkSettings) -> Callable[[], Awaitable[BackendState]]:
    async def embedded() -> BackendState:
        detail = "No AI Toolkit is configured: a miniature FLUX (tinyflux) is trained on the CPU."
        return BackendState(state="ok", engine="embedded", version=__version__, detail=detail)

    async def cli() -> BackendState:
        return await to_thread.run_sync(_checkout_state, settings.trainer_root)

    async def ui() -> BackendState:
        return await ui_state(_ui(settings))

    return {"ui": ui, "cli": cli, "embedded": embedded}[settings.engine]


def _checkout_state(folder: Path) -> BackendState:
    if not (folder / "run.py").is_file():
        detail = f"There is no run.py in {folder}; AITK_DIR must be a checkout of AI Toolkit."
        return BackendState(state="unavailable", engine="cli", detail=detail)
    try:
        found = _VERSION.search((folder / "version.py").read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = None
    return BackendState(state="ok", engine="cli", version=found[1] if found else None, detail=str(folder))


def _nothing_refused(document: TrainingDocument) -> str | None:
    return None
