"""Where ComfyUI is out of reach: whether diffusers renders instead, and what a request comes to then."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from anyio import to_thread

from comfy_mcp.engines.diffusers import DIFFUSERS, Diffusers
from comfy_mcp.engines.diffusers_models import DiffusersModel, best_that_fits
from comfy_mcp.engines.diffusers_orders import LoraOrder, PictureOrder
from comfy_mcp.engines.diffusers_pipelines import missing_library
from comfy_mcp.engines.diffusers_samplers import sampling_of
from comfy_mcp.engines.selection import Selected
from comfy_mcp.generation.picture_sizes import Size, sizes_of
from comfy_mcp.generation.requests import ImageRequest
from comfy_mcp.image_sizes import size_of_file
from comfy_mcp.loras.local import LocalLoras
from comfy_mcp.models.models import find_name
from comfy_mcp.workflows import GenerationRequest
from comfy_mcp.workflows.families import lora_fits, title_of
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.settings import settle
from lora_files.architectures import UNKNOWN
from mcp_toolserver.errors import BackendUnavailable, InvalidArguments, NotFound, closest

_INSTALL = "pip install 'loraloop[diffusers]'"
_GIB = 1024**3
# What only a graph can do.
_GRAPHS_ALONE = ("hires", "upscale_model", "controlnet", "reference_images")


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """What is rendered instead, in which mode, and what the caller should know of it."""

    order: PictureOrder
    workflow_name: str
    warnings: tuple[str, ...]


class Fallback:
    """Decide for diffusers, and turn requests into orders.

    `answers` tells whether ComfyUI answers now; `may_replace_embedded` is false where the embedded engine was chosen.
    """

    def __init__(
        self,
        engine: Diffusers,
        loras: LocalLoras,
        *,
        answers: Callable[[], Awaitable[bool]],
        may_replace_embedded: bool,
    ) -> None:
        self._engine = engine
        self._loras = loras
        self._answers = answers
        self._may_replace_embedded = may_replace_embedded

    async def why(self, wanted: str | None, selected: Selected) -> str | None:
        """Return why diffusers renders a request instead of the server's own engine, or None where it does not.

        Raises InvalidArguments where it was asked for and cannot.
        """
        if wanted == DIFFUSERS:
            await self._require()
            return "`engine` asked for it"
        if wanted not in (None, "auto") or not await self.is_usable():
            return None
        if selected.engine == "embedded":
            return "no ComfyUI is configured or answers" if self._may_replace_embedded else None
        return None if await self._answers() else f"ComfyUI did not answer at {selected.url}"

    async def is_usable(self) -> bool:
        """Tell whether diffusers and a model for it are on this machine."""
        return await to_thread.run_sync(missing_library) is None and bool(await self._engine.models())

    async def told(self) -> str:
        """Return what renders pictures while ComfyUI does not answer, or what is lacking for that, in a sentence."""
        models = await self._engine.models()
        if not models or await to_thread.run_sync(missing_library) is not None:
            return self.offer
        names = ", ".join(f"`{model.name}` ({title_of(model.family)})" for model in models)
        return f"While ComfyUI does not answer, diffusers renders pictures in this server, with {names}."

    @property
    def offer(self) -> str:
        """Return what there is to do so that diffusers can stand in, for errors."""
        return f"To render without ComfyUI: {_INSTALL}, and a diffusers model in {self._engine.model_folders[0]}."

    async def order(self, request: ImageRequest, seed: int, filename_prefix: str, why: str) -> Ordered:
        """Return what diffusers renders for a request.

        Raises InvalidArguments for what it cannot do, NotFound for a model, LoRA or picture that is not on this disk,
        and BackendUnavailable where no model fits into memory.
        """
        _refuse_graphs(request)
        model, said = await self._model(request)
        recipe = IMAGE_RECIPES[model.family]
        request = request.steered(recipe)
        sampling, sampling_warnings = sampling_of(model.family, request.sampler, request.scheduler)
        for field in ("input_image", "mask"):
            name = getattr(request, field)
            if name is not None:
                await self._engine.input_path(name, field=field)
        input_size, mask_size = await sizes_of(request, self._size_of)
        settings, warnings = settle(
            GenerationRequest(
                prompt=request.prompt,
                checkpoint=model.name,
                seed=seed,
                negative_prompt=request.negative_prompt,
                width=request.width,
                height=request.height,
                steps=request.steps,
                cfg_scale=request.cfg_scale,
                guidance=request.guidance,
                batch_size=request.batch_size,
                input_image=request.input_image,
                input_size=input_size,
                mask=request.mask,
                mask_size=mask_size,
                denoise=request.denoise,
            ),
            recipe,
        )
        if request.input_image is not None and int(settings.steps * settings.denoise) < 1:
            raise _too_little(settings.denoise, settings.steps)
        loras, lora_warnings = await self._chosen_loras(request, model)
        order = PictureOrder(
            model=model.name,
            prompt=request.prompt,
            negative_prompt=settings.negative_prompt,
            width=settings.width,
            height=settings.height,
            steps=settings.steps,
            guidance=settings.cfg if settings.guidance is None else settings.guidance,
            sampler=sampling.sampler,
            scheduler=sampling.scheduler,
            seed=seed,
            batch_size=settings.batch_size,
            filename_prefix=filename_prefix,
            loras=loras,
            input_image=request.input_image,
            mask=request.mask,
            denoise=settings.denoise,
        )
        rendered = f"Rendered by diffusers in this server with `{model.name}` ({title_of(model.family)}): {why}."
        return Ordered(
            order=order,
            workflow_name=f"diffusers-{model.family}-{settings.mode}",
            warnings=(rendered, *said, *warnings, *sampling_warnings, *lora_warnings),
        )

    async def _size_of(self, name: str) -> Size | None:
        return await to_thread.run_sync(size_of_file, await self._engine.input_path(name, field="input_image"))

    async def _require(self) -> None:
        missing = await to_thread.run_sync(missing_library)
        if missing is not None:
            raise InvalidArguments(
                f"Argument `engine` is `{DIFFUSERS}`, and `{missing}` is not installed in this server.",
                hint=f"Install the extra: {_INSTALL}, then start the server again.",
                details={"field": "engine", "value": DIFFUSERS, "missing": missing},
            )
        if not await self._engine.models():
            folders = [str(folder) for folder in self._engine.model_folders]
            raise InvalidArguments(
                f"Argument `engine` is `{DIFFUSERS}`, and there is no model for it in {' or '.join(folders)}.",
                hint="Put a folder there as diffusers saves it (model_index.json, weights as safetensors) of Stable "
                "Diffusion 1.5, XL or FLUX.1; COMFY_MCP_DIFFUSERS_DIR names another folder.",
                details={"field": "engine", "value": DIFFUSERS, "folders": folders},
            )

    async def _model(self, request: ImageRequest) -> tuple[DiffusersModel, list[str]]:
        models = await self._engine.models()
        room = await self._engine.memory()
        warnings: list[str] = []
        if request.checkpoint is not None:
            named = _named(request.checkpoint, models)
            if named is not None:
                return named, []
            if request.engine == DIFFUSERS:
                names = [model.name for model in models]
                raise NotFound(
                    f"Argument `checkpoint` is `{request.checkpoint}`: the engine diffusers has no such model.",
                    hint=f"It has {', '.join(names)}.",
                    details={
                        "field": "checkpoint",
                        "value": request.checkpoint,
                        "closest_matches": closest(request.checkpoint, names),
                    },
                )
            warnings.append(f"`checkpoint` {request.checkpoint} is ComfyUI's, and was not used.")
        model = best_that_fits(models, room.free_bytes, on_gpu=room.on_gpu)
        if model is None:
            least = min(model.needed_bytes(on_gpu=room.on_gpu) for model in models)
            where = "GPU" if room.on_gpu else "main"
            raise BackendUnavailable(
                f"No diffusers model fits into the free {where} memory of {room.free_bytes / _GIB:.1f} GiB: the "
                f"smallest needs about {least / _GIB:.1f} GiB.",
                hint="End what else uses it, or name a model by `checkpoint` to try it all the same.",
                details={"free_bytes": room.free_bytes, "needed_bytes": least},
            )
        return model, warnings

    async def _chosen_loras(
        self, request: ImageRequest, model: DiffusersModel
    ) -> tuple[tuple[LoraOrder, ...], list[str]]:
        names = await self._loras.names() if request.loras else ()
        chosen: list[LoraOrder] = []
        warnings: list[str] = []
        for index, choice in enumerate(request.loras):
            field = f"loras.{index}.name"
            name = _found(choice.name, names, field)
            architecture = await self._loras.architecture(name)
            if architecture != UNKNOWN and not lora_fits(architecture, model.family):
                raise InvalidArguments(
                    f"Argument `{field}` is `{name}`, a LoRA for {title_of(architecture)}: diffusers renders with "
                    f"`{model.name}`, which is {title_of(model.family)}.",
                    hint="Leave it out, or name a `checkpoint` of its kind.",
                    details={"field": field, "value": name, "architecture": architecture, "family": model.family},
                )
            if choice.strength_clip not in (None, choice.strength):
                warnings.append(
                    f"`strength_clip` of `{name}` was set to {choice.strength}: diffusers has one strength for all."
                )
            chosen.append(LoraOrder(name=name, strength=choice.strength))
        return tuple(chosen), warnings


def _found(wanted: str, names: tuple[str, ...], field: str) -> str:
    try:
        return find_name(wanted, names, field=field, what="LoRA")
    except NotFound as error:
        near = error.details.get("closest_matches")
        raise NotFound(
            f"Argument `{field}` is `{wanted}`: there is no such LoRA on this disk, and ComfyUI does not answer.",
            hint=error.hint if near else "`list-loras` has those that there are; COMFYUI_DIR says where they lie.",
            details=error.details,
        ) from None


def _refuse_graphs(request: ImageRequest) -> None:
    for field in _GRAPHS_ALONE:
        if getattr(request, field):
            raise InvalidArguments(
                f"Argument `{field}` needs ComfyUI: the engine diffusers, which renders now, has no such step.",
                hint=f"Start ComfyUI, or leave `{field}` out.",
                details={"field": field, "engine": DIFFUSERS},
            )


def _named(wanted: str, models: Sequence[DiffusersModel]) -> DiffusersModel | None:
    plain = wanted.casefold().removesuffix(".safetensors")
    return next((model for model in models if model.name.casefold() == plain), None)


def _too_little(denoise: float, steps: int) -> InvalidArguments:
    least = -(-100 // steps) / 100
    return InvalidArguments(
        f"Argument `denoise` is {denoise}: of {steps} steps, none would be left to draw anything.",
        hint=f"Give at least {least} with {steps} steps.",
        details={"field": "denoise", "value": denoise, "closest": least},
    )
