"""The only place where the objects of comfy_mcp are built."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.engines.comfyui_http import fixed
from comfy_mcp.engines.diffusers import DIFFUSERS, Diffusers
from comfy_mcp.engines.selection import EngineName, Selection, Wanted
from comfy_mcp.generation.fallback import Fallback
from comfy_mcp.generation.generation import Generation
from comfy_mcp.generation.named_files import DescribeLora, LoraFacts, NamedFiles
from comfy_mcp.image_sizes import input_size
from comfy_mcp.images import Images
from comfy_mcp.imports.imports import Imports
from comfy_mcp.imports.peer import AitkPeer
from comfy_mcp.jobs.jobs import Jobs
from comfy_mcp.jobs.servers import Servers
from comfy_mcp.jobs.store import JobStore
from comfy_mcp.loras.checks import LoraChecks
from comfy_mcp.loras.info import LoraInfo
from comfy_mcp.loras.local import LocalLoras
from comfy_mcp.loras.loras import WORK_FOLDER, LoraLibrary
from comfy_mcp.loras.remote import RemoteLoras, listed_by
from comfy_mcp.loras.routes import lora_routes
from comfy_mcp.loras.uploads import LoraUploads
from comfy_mcp.model_tips import TipBook
from comfy_mcp.models.base_models import BaseModels
from comfy_mcp.models.downloads import Downloads
from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import LORAS, Models
from comfy_mcp.models.shelf import ModelShelf
from comfy_mcp.settings import DEFAULT_AITK_URL, DEFAULT_COMFYUI_URL, ComfySettings
from comfy_mcp.system import System
from comfy_mcp.tools.generation import generation_tools
from comfy_mcp.tools.image_workflows import image_workflow_tools
from comfy_mcp.tools.imports import import_tools
from comfy_mcp.tools.jobs import job_tools
from comfy_mcp.tools.loras import lora_tools
from comfy_mcp.tools.model_files import model_file_tools
from comfy_mcp.tools.models import model_tools
from comfy_mcp.tools.system import system_tools
from comfy_mcp.tools.uploads import upload_tools
from comfy_mcp.tools.workflows import workflow_tools
from comfy_mcp.workflow_checks import TellArchitecture, WorkflowChecks
from lora_files.architectures import UNKNOWN
from mcp_toolserver import __version__
from mcp_toolserver.app import ServerIdentity, ToolServer, create_server_app, door_policy
from mcp_toolserver.errors import Forbidden, NotFound
from mcp_toolserver.outbound import Outbound, OutboundPolicy
from mcp_toolserver.tools import Toolbox
from mcp_toolserver.uploads.tus import tus_routes

# A ComfyUI elsewhere that is asked about an old job, and is not there, is not waited for.
_NO_PATIENCE_S = 0.0

_INSTRUCTIONS = (
    "Renders pictures and videos with ComfyUI. `list-loras` and `list-models` name what there is; `generate-image` and "
    "`generate-video` pick the graph; `execute-workflow` runs your own. A call that runs out of `wait_s` loses "
    "nothing: `wait-job` has the result. `import-lora` brings a LoRA from aitk_mcp in one call; others arrive by the "
    "chunked upload, or by tus at `/uploads`."
)


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """The server, and the objects in it that Python callers use without its doors, while its lifespan lasts."""

    server: ToolServer
    generation: Generation
    jobs: Jobs
    images: Images


def build(settings: ComfySettings) -> ToolServer:
    """Build the server; nothing is started or touched before its lifespan begins."""
    return assemble(settings).server


def assemble(settings: ComfySettings) -> Assembled:
    """Build the server's objects; nothing is started or touched before its lifespan begins."""
    selection = Selection(_wanted(settings))

    async def engine_folder() -> Path | None:
        embedded = (await selection.selected()).engine == "embedded"
        return settings.data_dir / "comfyui" if embedded else settings.comfyui_dir

    comfyui = ComfyUI(selection.address, lost_after_s=settings.lost_after_s, folder=engine_folder)
    folders = ModelFolders(
        comfyui,
        selection.selected,
        comfyui_dir=settings.comfyui_dir,
        embedded_dir=settings.data_dir / "comfyui",
    )
    models = Models(comfyui, folders.header)
    local_loras = LocalLoras(lambda: folders.on_disk(LORAS))
    diffusers = Diffusers(
        settings.data_dir / DIFFUSERS,
        _diffusers_folders(settings),
        lora_path=local_loras.path,
        input_folders=[settings.comfyui_dir / "input"] if settings.comfyui_dir else [],
    )
    jobs = Jobs(
        JobStore(settings.data_dir / "jobs.sqlite"),
        Servers(settings.data_dir / "servers"),
        comfyui,
        selected=selection.selected,
        at=lambda url: ComfyUI(fixed(url), lost_after_s=_NO_PATIENCE_S),
        engines={DIFFUSERS: diffusers},
    )
    images = Images(comfyui, diffusers, jobs, selection.selected)
    library = LoraLibrary(
        lambda: folders.place(LORAS),
        remote=RemoteLoras(comfyui),
        staging=settings.data_dir / WORK_FOLDER,
        cache_file=settings.data_dir / "loras.sqlite",
        replaced=lambda name: comfyui.free(),
        listed=lambda name: listed_by(comfyui, name),
    )
    uploads = LoraUploads(library)

    def shelf_of(kind: str) -> ModelShelf:
        async def listed() -> tuple[str, ...]:
            return await comfyui.models(kind) or ()

        return ModelShelf(kind, lambda: folders.place(kind), listed)

    downloads = Downloads(
        Outbound(_outbound_policy(settings)), models, lambda kind: library if kind == LORAS else shelf_of(kind)
    )
    # What an agent names by its address comes from there, and not from where that redirects to.
    web = Downloads(Outbound(replace(_outbound_policy(settings), same_host=True)), models, lambda kind: library)
    peer = AitkPeer(
        settings.aitk_url or DEFAULT_AITK_URL,
        settings.aitk_token,
        is_configured=settings.aitk_url is not None,
        connections=settings.aitk_connections,
    )
    imports = Imports(peer, library, uploads)
    base_models = BaseModels(models, folders)
    lora_checks = LoraChecks(library, models, folders)
    checks = WorkflowChecks(
        comfyui.object_info,
        _architecture_teller(library),
        base_models.certain_family,
        lora_fit=lora_checks.fit,
        problem=folders.problem,
        engine_is_away=comfyui.is_away,
    )
    fallback = Fallback(
        diffusers,
        local_loras,
        answers=comfyui.answers,
        may_replace_embedded=settings.backend == "auto",
    )
    generation = Generation(
        jobs,
        NamedFiles(models, _describer(library)),
        base_models,
        checks,
        fallback,
        selected=selection.selected,
        size_of=partial(input_size, comfyui),
    )
    system = System(comfyui, selection.selected, folders.doubts, fallback.told)

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for part in (selection, comfyui, diffusers, jobs, downloads, web, imports):
                await stack.enter_async_context(part.running())
            yield

    server = ToolServer(
        identity=ServerIdentity(
            name="comfy_mcp", title="LoRA Loop: ComfyUI", version=__version__, instructions=_INSTRUCTIONS
        ),
        toolbox=Toolbox(
            [
                *lora_tools(library, lora_checks),
                *upload_tools(uploads),
                *import_tools(imports, peer, web, library),
                *workflow_tools(checks),
                *generation_tools(generation, jobs, images),
                *job_tools(jobs, images),
                *image_workflow_tools(images),
                *model_tools(models, folders, comfyui),
                *model_file_tools(TipBook(models, folders, library), downloads, models, library, shelf_of),
                *system_tools(system),
            ]
        ),
        backend=system.backend,
        routes=[*images.routes(), *lora_routes(library), *tus_routes(uploads, public_url=settings.public_url)],
        lifespan=lifespan,
    )
    return Assembled(server=server, generation=generation, jobs=jobs, images=images)


def create_app(settings: ComfySettings) -> Starlette:
    """Build a new app; an app runs once."""
    return create_server_app(build(settings), door_policy(settings), settings.public_url)


def _outbound_policy(settings: ComfySettings) -> OutboundPolicy:
    return OutboundPolicy(
        hosts=settings.download_hosts, max_bytes=settings.max_download_bytes, setting="COMFY_MCP_DOWNLOAD_HOSTS"
    )


def _diffusers_folders(settings: ComfySettings) -> list[Path]:
    if settings.diffusers_dir is not None:
        return [settings.diffusers_dir]
    own = settings.data_dir / DIFFUSERS / "models"
    return [own, settings.comfyui_dir / "models" / "diffusers"] if settings.comfyui_dir else [own]


def _wanted(settings: ComfySettings) -> Wanted:
    engine: EngineName | None = None if settings.backend == "auto" else settings.backend
    if engine is None and (settings.comfyui_api_url or settings.comfyui_dir):
        engine = "comfyui"
    return Wanted(
        engine=engine,
        comfyui_url=settings.comfyui_api_url or DEFAULT_COMFYUI_URL,
        embedded_dir=settings.data_dir / "comfyui",
    )


async def _lora(library: LoraLibrary, name: str) -> LoraInfo | None:
    try:
        return await library.info(name.replace("\\", "/"), hashes=False)
    except (Forbidden, NotFound):
        # ComfyUI has it and this machine does not: it can be used, and nothing more can be said of it.
        return None


def _architecture_teller(library: LoraLibrary) -> TellArchitecture:
    async def tell(name: str) -> str | None:
        lora = await _lora(library, name)
        return lora.architecture if lora is not None and lora.architecture != UNKNOWN else None

    return tell


def _describer(library: LoraLibrary) -> DescribeLora:
    async def describe(name: str) -> LoraFacts | None:
        lora = await _lora(library, name)
        if lora is None or lora.said is None:
            return None
        return LoraFacts(
            trigger_words=tuple(lora.trigger_words),
            # Where its layers are not known, the loader that takes both is the one that loses nothing.
            text_encoder=lora.description is None or lora.description.network.text_encoder,
        )

    return describe
