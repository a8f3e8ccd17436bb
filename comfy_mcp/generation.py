"""From what a caller asks to a job: choose the model, name the LoRAs, build and check the graph, submit it."""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from comfy_mcp.engines.selection import Selected
from comfy_mcp.graph_inputs import with_inputs
from comfy_mcp.jobs.jobs import Jobs
from comfy_mcp.jobs.live import JobState
from comfy_mcp.jobs.store import JobRecord
from comfy_mcp.models.base_models import BaseModels
from comfy_mcp.models.models import LORAS, Models, find_name
from comfy_mcp.workflow_checks import CheckedWorkflow, WorkflowChecks
from comfy_mcp.workflows import GenerationRequest, Graph, LoraUse, build, has_errors
from mcp_toolserver.errors import BackendUnavailable, InvalidArguments

RANDOM_SEED = -1
# Half of ComfyUI's range: the other half does not fit the signed integers of databases and of many languages.
_SEEDS = 2**63
EMBEDDED_PIXELS = 32

_CONVERTED = "The workflow was converted from the form that ComfyUI's page saves; its seeds are those saved in it."


@dataclass(frozen=True, kw_only=True)
class LoraFacts:
    """What the file of a LoRA tells that matters here; `text_encoder` is whether it changes one."""

    trigger_words: tuple[str, ...]
    text_encoder: bool


DescribeLora = Callable[[str], Awaitable[LoraFacts | None]]
"""Return what is known of a LoRA, by the name that its loader takes, or None where its file is out of reach."""


@dataclass(frozen=True, kw_only=True)
class LoraChoice:
    """A LoRA as the caller names it."""

    name: str
    strength: float = 1.0
    strength_clip: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """What a caller asks of a picture; None leaves a value to the model's family. Seed -1 is a random one."""

    prompt: str
    negative_prompt: str = ""
    checkpoint: str | None = None
    loras: tuple[LoraChoice, ...] = ()
    width: int | None = None
    height: int | None = None
    seed: int = RANDOM_SEED
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    input_image: str | None = None
    denoise: float | None = None
    engine: str | None = None


class Generation:
    """Start jobs that make pictures."""

    def __init__(
        self,
        jobs: Jobs,
        models: Models,
        base_models: BaseModels,
        checks: WorkflowChecks,
        *,
        selected: Callable[[], Awaitable[Selected]],
        describe_lora: DescribeLora,
    ) -> None:
        self._jobs = jobs
        self._models = models
        self._base_models = base_models
        self._checks = checks
        self._selected = selected
        self._describe_lora = describe_lora

    async def generate(self, request: ImageRequest) -> JobState:
        """Start a job for one request, on the right graph for its model; returns once ComfyUI has accepted it.

        Raises NotFound for a model or LoRA that is not there and InvalidArguments for a value that cannot be, both
        with the closest valid one, before anything is queued.
        """
        selected = await self._selected()
        _check_engine(request.engine, selected)
        base = await self._base_models.choose(request.checkpoint)
        loras, lora_warnings = await self._loras(request)
        job_id = str(uuid4())
        built = build(
            GenerationRequest(
                prompt=request.prompt,
                checkpoint=base.model,
                seed=secrets.randbelow(_SEEDS) if request.seed == RANDOM_SEED else request.seed,
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
                denoise=request.denoise,
                # Names of its own keep the address of a picture true after the output folder was cleared.
                filename_prefix=f"loraloop_{job_id[:8]}",
            ),
            base.variant,
        )
        graph, doubts = _runnable(await self._checks.check(built.graph))
        warnings = (
            *base.warnings,
            *built.warnings,
            *lora_warnings,
            *doubts,
            *_honest(selected, built.settings.width, built.settings.height),
        )
        return await self._jobs.start(
            JobRecord(
                job_id=job_id,
                tool="generate-image",
                status="queued",
                created_at=time.time(),
                engine=selected.engine,
                engine_url=selected.url,
                workflow_name=built.workflow_name,
                seed=built.settings.seed,
                graph=graph,
                warnings=tuple(dict.fromkeys(warnings)),
            )
        )

    async def execute(self, workflow: Mapping[str, Any], inputs: Mapping[str, Any], name: str) -> JobState:
        """Start a job for a caller's own graph, with `inputs` put into it; a graph of the page is converted first.

        Raises InvalidArguments that names every fault, before anything is queued.
        """
        selected = await self._selected()
        checked = await self._checks.check(workflow)
        converted = [_CONVERTED] if checked.converted else []
        if inputs and checked.graph is not None:
            checked = await self._checks.check(with_inputs(checked.graph, inputs))
        graph, doubts = _runnable(checked)
        warnings = (*converted, *doubts, *_honest(selected, None, None))
        return await self._jobs.start(
            JobRecord(
                job_id=str(uuid4()),
                tool="execute-workflow",
                status="queued",
                created_at=time.time(),
                engine=selected.engine,
                engine_url=selected.url,
                workflow_name=name,
                graph=graph,
                warnings=warnings,
            )
        )

    async def _loras(self, request: ImageRequest) -> tuple[tuple[LoraUse, ...], list[str]]:
        if not request.loras:
            return (), []
        names = await self._models.names(LORAS)
        uses: list[LoraUse] = []
        warnings: list[str] = []
        for index, choice in enumerate(request.loras):
            name = find_name(choice.name, names, field=f"loras.{index}.name", what="LoRA")
            if name != choice.name:
                warnings.append(f"LoRA {choice.name} was taken for `{name}`.")
            facts = await self._describe_lora(name)
            if facts is not None:
                warnings += _missing_trigger(name, facts, request.prompt)
            uses.append(
                LoraUse(
                    name=name,
                    strength=choice.strength,
                    strength_clip=choice.strength_clip,
                    model_only=facts is not None and not facts.text_encoder,
                )
            )
        return tuple(uses), warnings


def _runnable(checked: CheckedWorkflow) -> tuple[Graph, list[str]]:
    """Return the graph and what is doubtful about it; raises InvalidArguments for what cannot run."""
    if checked.graph is not None and not has_errors(checked.problems):
        return checked.graph, [problem.message for problem in checked.problems]
    errors = [problem for problem in checked.problems if problem.severity == "error"]
    raise InvalidArguments(
        "The workflow cannot run: " + " ".join(f"{problem.message.rstrip('.')}." for problem in errors),
        hint="Nothing was queued. Correct the named inputs; `validate-workflow` checks a graph on its own.",
        details={"problems": [asdict(problem) for problem in checked.problems]},
    )


def _check_engine(wanted: str | None, selected: Selected) -> None:
    if wanted in {None, "auto", selected.engine}:
        return
    raise BackendUnavailable(
        f"Argument `engine` is `{wanted}`, and this server renders with {selected.engine} at {selected.url}.",
        hint="Leave `engine` out, or start the server with COMFY_MCP_BACKEND="
        f"{wanted}{' and COMFYUI_API_URL' if wanted == 'comfyui' else ''}.",
        details={"field": "engine", "value": wanted, "engine": selected.engine},
    )


def _missing_trigger(name: str, facts: LoraFacts, prompt: str) -> list[str]:
    words = [word for word in facts.trigger_words if word.strip()]
    if not words or any(word.lower() in prompt.lower() for word in words):
        return []
    return [f"The prompt lacks the trigger word of `{name}`: without `{words[0]}` it may show little effect."]


def _honest(selected: Selected, width: int | None, height: int | None) -> list[str]:
    if selected.engine != "embedded":
        return []
    size = f"to {width} x {height}" if width and height else "to the size asked for"
    return [
        f"Rendered by the embedded engine, a miniature model: a {EMBEDDED_PIXELS} x {EMBEDDED_PIXELS} picture scaled "
        f"{size}. Set COMFYUI_API_URL to render with ComfyUI."
    ]
