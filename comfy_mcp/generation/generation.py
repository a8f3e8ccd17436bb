"""Start jobs: choose the model, name the files, build and check the graph, submit it."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

from comfy_mcp.engines.diffusers import DIFFUSERS
from comfy_mcp.engines.selection import Selected
from comfy_mcp.generation.fallback import Fallback
from comfy_mcp.generation.named_files import NamedFiles
from comfy_mcp.generation.picture_sizes import SizeOf, sizes_of
from comfy_mcp.generation.requests import AnimationRequest, ImageRequest, drawn_seed
from comfy_mcp.graph_inputs import check_names, with_inputs
from comfy_mcp.jobs.jobs import Jobs
from comfy_mcp.jobs.live import JobState
from comfy_mcp.jobs.store import JobRecord
from comfy_mcp.models.base_models import BaseModels
from comfy_mcp.workflow_checks import CheckedWorkflow, WorkflowChecks
from comfy_mcp.workflows import (
    BuiltGraph,
    GenerationRequest,
    Graph,
    LoraUse,
    Problem,
    VideoRequest,
    build,
    build_video,
    has_errors,
)
from comfy_mcp.workflows.graphs import inputs_of
from comfy_mcp.workflows.image_recipes import IMAGE_RECIPES
from comfy_mcp.workflows.problems import MOST_PROBLEMS
from comfy_mcp.workflows.ranges import check_video
from comfy_mcp.workflows.video_settings import VideoSettings
from mcp_toolserver.errors import BackendUnavailable, InvalidArguments, NotFound

EMBEDDED_PIXELS = 32
_MOST_SENTENCES = 10
# Faults of a graph that are those of a value which the caller named.
_ARGUMENT_FAULTS = frozenset({"value_not_in_list", "model_unreadable", "lora_architecture", "lora_no_effect"})

_CONVERTED = "The workflow was converted from the form that ComfyUI's page saves; its seeds are those saved in it."


class Generation:
    """Start jobs that make pictures and videos."""

    def __init__(
        self,
        jobs: Jobs,
        files: NamedFiles,
        base_models: BaseModels,
        checks: WorkflowChecks,
        fallback: Fallback,
        *,
        selected: Callable[[], Awaitable[Selected]],
        size_of: SizeOf,
    ) -> None:
        self._jobs = jobs
        self._files = files
        self._base_models = base_models
        self._checks = checks
        self._fallback = fallback
        self._selected = selected
        self._size_of = size_of

    async def generate(self, request: ImageRequest) -> JobState:
        """Start a job for one request, on the right graph for its model; returns once ComfyUI has accepted it.

        Raises NotFound for a model or LoRA that is not there and InvalidArguments for a value that cannot be, both
        with the closest valid one, before anything is queued.
        """
        selected = await self._selected()
        why = await self._fallback.why(request.engine, selected)
        if why is not None:
            return await self._by_diffusers(request, why)
        try:
            return await self._by_graph(request, selected)
        except BackendUnavailable as error:
            if selected.engine == "comfyui" and not error.details.get("field"):
                error.hint = f"{error.hint or ''} {self._fallback.offer}".strip()
            raise

    async def _by_diffusers(self, request: ImageRequest, why: str) -> JobState:
        job_id = str(uuid4())
        ordered = await self._fallback.order(request, drawn_seed(request.seed), _file_prefix(job_id), why)
        return await self._start(
            "generate-image",
            job_id,
            Selected(engine=DIFFUSERS, url=""),
            ordered.order.as_graph(),
            ordered.workflow_name,
            ordered.order.seed,
            ordered.warnings,
        )

    async def _by_graph(self, request: ImageRequest, selected: Selected) -> JobState:
        _check_engine(request.engine, selected)
        if selected.engine == "embedded":
            _refuse_extras(request)
        base = await self._base_models.choose(request.checkpoint)
        recipe = IMAGE_RECIPES[base.variant]
        request = request.steered(recipe)
        loras, lora_warnings = await self._files.loras(request.loras, request.prompt)
        upscale_model, upscale_warnings = await self._files.upscale_model(request.upscale_model)
        controlnet, control_warnings = await self._files.controlnet(
            request.controlnet, patches_model=recipe.controlnet == "model"
        )
        input_size, mask_size = await sizes_of(request, self._size_of)
        job_id = str(uuid4())
        built = build(
            GenerationRequest(
                prompt=request.prompt,
                checkpoint=base.model,
                seed=drawn_seed(request.seed),
                negative_prompt=request.negative_prompt,
                loras=loras,
                width=request.width,
                height=request.height,
                steps=request.steps,
                cfg_scale=request.cfg_scale,
                guidance=request.guidance,
                sampler=request.sampler,
                scheduler=request.scheduler,
                batch_size=request.batch_size,
                input_image=request.input_image,
                input_size=input_size,
                reference_images=request.reference_images,
                mask=request.mask,
                mask_size=mask_size,
                denoise=request.denoise,
                hires=request.hires,
                upscale_model=upscale_model,
                controlnet=controlnet,
                filename_prefix=_file_prefix(job_id),
            ),
            base.variant,
        )
        arguments = {base.name: "checkpoint", **_lora_arguments(loras), **_arguments(request)}
        graph, doubts = _runnable(await self._checks.check(built.graph), arguments)
        said = (base.warnings, built.warnings, lora_warnings, upscale_warnings, control_warnings, doubts)
        warnings = [*_joined(said), *_honest(selected, *_size_of(built, request))]
        try:
            return await self._start(
                "generate-image", job_id, selected, graph, built.workflow_name, built.settings.seed, warnings
            )
        except InvalidArguments as error:
            raise _by_argument(error, graph, arguments) from None

    async def animate(self, request: AnimationRequest) -> tuple[JobState, VideoSettings]:
        """Start a job for a video, and return it with what is really rendered; refuses as `generate` does."""
        selected = await self._selected()
        _check_engine(request.engine, selected)
        asked = VideoRequest(
            checkpoint="",
            seed=drawn_seed(request.seed),
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            input_image=request.input_image,
            width=request.width,
            height=request.height,
            frames=request.frames,
            fps=request.fps,
            steps=request.steps,
            cfg_scale=request.cfg_scale,
            motion_strength=request.motion_strength,
        )
        # Values first: they are wrong whatever models there are.
        check_video(asked)
        if selected.engine == "embedded":
            raise _not_embedded("makes no videos")
        base = await self._base_models.choose(
            request.video_model, "videos", reads_image=request.input_image is not None
        )
        loras, lora_warnings = await self._files.loras(request.loras, request.prompt)
        job_id = str(uuid4())
        built = build_video(
            replace(
                asked,
                checkpoint=base.model,
                loras=loras,
                as_webp=not await self._checks.has_nodes("CreateVideo", "SaveVideo"),
                filename_prefix=f"video/{_file_prefix(job_id)}",
            ),
            base.variant,
        )
        arguments = {
            base.name: "video_model",
            **_lora_arguments(loras),
            **({request.input_image: "input_image"} if request.input_image else {}),
        }
        graph, doubts = _runnable(await self._checks.check(built.graph), arguments)
        warnings = _joined((base.warnings, built.warnings, lora_warnings, doubts))
        state = await self._start(
            "generate-video", job_id, selected, graph, built.workflow_name, built.settings.seed, warnings
        )
        return state, built.settings

    async def execute(self, workflow: Mapping[str, Any], inputs: Mapping[str, Any], name: str) -> JobState:
        """Start a job for a caller's own graph, with `inputs` put into it; a graph of the page is converted first.

        Raises InvalidArguments that names every fault, before anything is queued.
        """
        selected = await self._selected()
        checked = await self._checks.check(workflow)
        converted = [_CONVERTED] if checked.converted else []
        if inputs and checked.graph is not None:
            before = checked.graph
            checked = await self._checks.check(with_inputs(before, inputs))
            check_names(before, inputs, checked.problems)
        graph, doubts = _runnable(checked)
        warnings = [*converted, *doubts, *_honest(selected, None, None)]
        return await self._start("execute-workflow", str(uuid4()), selected, graph, name, None, warnings)

    async def _start(
        self,
        tool: str,
        job_id: str,
        selected: Selected,
        graph: Graph,
        workflow_name: str,
        seed: int | None,
        warnings: Iterable[str],
    ) -> JobState:
        return await self._jobs.start(
            JobRecord(
                job_id=job_id,
                tool=tool,
                status="queued",
                created_at=time.time(),
                engine=selected.engine,
                engine_url=selected.url,
                workflow_name=workflow_name,
                seed=seed,
                graph=graph,
                warnings=tuple(warnings),
            )
        )


def _runnable(checked: CheckedWorkflow, arguments: Mapping[str, str] | None = None) -> tuple[Graph, list[str]]:
    """Return the graph and what is doubtful about it; raises InvalidArguments for what cannot run.

    `arguments` are the caller's own names for values that stand in the graph; a fault in one of them is told by it.
    """
    if checked.graph is not None and not has_errors(checked.problems):
        return checked.graph, _told(checked.problems, MOST_PROBLEMS)
    errors = [problem for problem in checked.problems if problem.severity == "error"]
    for problem in errors:
        value = inputs_of((checked.graph or {}).get(problem.node_id or "")).get(problem.input or "")
        field = (arguments or {}).get(value) if isinstance(value, str) else None
        if problem.code in _ARGUMENT_FAULTS and field is not None:
            lacks = ", which ComfyUI does not have" if problem.code == "value_not_in_list" else ""
            details = {"closest_matches": list(problem.closest_matches), **_details(checked.problems)}
            raise _wrong_argument(field, value, f"{lacks}. {problem.message}", details)
    raise InvalidArguments(
        "The workflow cannot run: " + " ".join(_sentence(message) for message in _told(errors, _MOST_SENTENCES)),
        hint="Nothing was queued. Correct the named inputs; `validate-workflow` checks a graph on its own.",
        details=_details(checked.problems),
    )


def _by_argument(error: InvalidArguments, graph: Graph, arguments: Mapping[str, str]) -> InvalidArguments:
    """Return ComfyUI's own refusal in the caller's words, where it is of a value that the caller gave."""
    for problem in error.details.get("problems", ()):
        value = inputs_of(graph.get(problem["node_id"])).get(problem["input"])
        field = arguments.get(value) if isinstance(value, str) else None
        if field is not None:
            details = {**error.details, "closest_matches": problem["closest_matches"]}
            return _wrong_argument(field, value, f", and ComfyUI refused it. {problem['message']}", details)
    return error


def _wrong_argument(field: str, value: object, reason: str, details: Mapping[str, Any]) -> InvalidArguments:
    return InvalidArguments(
        f"Argument `{field}` is {value!r}{_sentence(reason)}",
        hint=f"Nothing was queued. Correct `{field}`.",
        details={"field": field, "value": value, **details},
    )


def _told(problems: Sequence[Problem], most: int) -> list[str]:
    left_out = len(problems) - most
    more = [f"{left_out} more like these are left out."] if left_out > 0 else []
    return [*(problem.message for problem in problems[:most]), *more]


def _details(problems: Sequence[Problem]) -> dict[str, Any]:
    return {
        "problems": [asdict(problem) for problem in problems[:MOST_PROBLEMS]],
        "problems_left_out": max(0, len(problems) - MOST_PROBLEMS),
    }


def _sentence(message: str) -> str:
    return message if message.endswith((".", "?")) else f"{message}."


def _arguments(request: ImageRequest) -> dict[str, str]:
    named = {
        "sampler": request.sampler,
        "scheduler": request.scheduler,
        "mask": request.mask,
        "controlnet.image": None if request.controlnet is None else request.controlnet.image,
        "input_image": request.input_image,
        **{f"reference_images.{index}": image for index, image in enumerate(request.reference_images)},
    }
    return {value: argument for argument, value in named.items() if value}


def _lora_arguments(loras: Iterable[LoraUse]) -> dict[str, str]:
    return {lora.name: f"loras.{index}.name" for index, lora in enumerate(loras)}


def _refuse_extras(request: ImageRequest) -> None:
    if request.upscale_model is not None:
        raise _not_embedded("has no upscale models", field="upscale_model", value=request.upscale_model)
    if request.controlnet is not None:
        raise _not_embedded("has no ControlNets", field="controlnet.name", value=request.controlnet.name)


def _not_embedded(lacks: str, **details: str) -> NotFound:
    named = f"Argument `{details['field']}` is `{details['value']}`: t" if details else "T"
    return NotFound(
        f"{named}he embedded engine, which renders here, {lacks}.",
        hint="Set COMFYUI_API_URL to a ComfyUI, and start this server again.",
        details={"engine": "embedded", "setting": "COMFYUI_API_URL", **details},
    )


def _check_engine(wanted: str | None, selected: Selected) -> None:
    if wanted in {None, "auto", selected.engine}:
        return
    raise InvalidArguments(
        f"Argument `engine` is `{wanted}`, and this server renders with {selected.engine} at {selected.url}.",
        hint="Leave `engine` out, or start the server with COMFY_MCP_BACKEND="
        f"{wanted}{' and COMFYUI_API_URL' if wanted == 'comfyui' else ''}.",
        details={"field": "engine", "value": wanted, "engine": selected.engine},
    )


def _file_prefix(job_id: str) -> str:
    # Names of its own keep the address of a picture true after the output folder was cleared.
    return f"loraloop_{job_id[:8]}"


def _joined(said: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(warning for warnings in said for warning in warnings))


def _size_of(built: BuiltGraph, request: ImageRequest) -> tuple[int | None, int | None]:
    width, height = built.settings.width, built.settings.height
    scale = 1.0 if request.hires is None else request.hires.scale
    return (None, None) if width is None or height is None else (round(width * scale), round(height * scale))


def _honest(selected: Selected, width: int | None, height: int | None) -> list[str]:
    if selected.engine != "embedded":
        return []
    size = f"to {width} x {height}" if width and height else "to the size asked for"
    return [
        f"Rendered by the embedded engine, a miniature model: a {EMBEDDED_PIXELS} x {EMBEDDED_PIXELS} picture scaled "
        f"{size}. Set COMFYUI_API_URL to render with ComfyUI."
    ]
