"""The tools that tell what ComfyUI has: models and node classes."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, Field

from comfy_mcp.engines.comfyui import ComfyUI
from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import LORAS, ModelFile, Models
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import NotFound, closest
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


class ListModels(Arguments):
    """List the models that ComfyUI has: checkpoints, loras, vae, text_encoders, diffusion_models, and so on."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {"folder": "the argument is `type`."}
    type: str | None = Field(
        None,
        validation_alias=AliasChoices("type", "model_type"),
        description="kind of model, such as checkpoints or loras; every kind when left out",
    )


class GetObjectInfo(Arguments):
    """Describe a ComfyUI node class: inputs with types, bounds and choices, and outputs. Without a name, list the
    names of all classes."""

    node_class: str | None = Field(
        None,
        validation_alias=AliasChoices("node_class", "class_type"),
        description="name of the class, such as KSampler; left out: the list of names",
    )


class Model(Result):
    """A model."""

    name: str = Field(description="what the loader takes, sub-folders included")
    type: str = Field(description="kind of model")
    size_bytes: int | None = Field(description="size in bytes; null where ComfyUI does not tell")
    family: str | None = Field(
        description="family by name, else by its layers or size, for checkpoints and diffusion models"
    )
    problem: str | None = Field(default=None, description="why it cannot be loaded; of LoRAs, `list-loras` says it")


class ModelList(Result):
    """The models that ComfyUI has."""

    models: list[Model] = Field(description="models, by kind")
    total: int = Field(description="how many there are")


class ObjectInfo(Result):
    """What ComfyUI says of its node classes."""

    node_class: str | None = Field(description="the class that is described")
    info: dict[str, Any] | None = Field(description="ComfyUI's own description of the class")
    node_classes: list[str] = Field(description="names of all classes; empty when one was asked for")


def model_tools(models: Models, folders: ModelFolders, comfyui: ComfyUI) -> list[AnyTool]:
    """Return the tools that list models and node classes."""

    async def list_models(args: ListModels, call: Call) -> ModelList:
        found = await models.of_type(args.type)
        names: dict[str, list[str]] = {}
        for model in found:
            names.setdefault(model.type, []).append(model.name)
        # LoRAs may be ten thousand: `list-loras` remembers what it read of them.
        problems = {kind: await folders.problems(kind, names[kind]) for kind in names if kind != LORAS}

        def shown(model: ModelFile) -> Model:
            problem = problems.get(model.type, {}).get(model.name)
            # What a file is called says nothing once it is known to be something else.
            family = model.family if problem is None else None
            return Model(name=model.name, type=model.type, size_bytes=model.size_bytes, family=family, problem=problem)

        return ModelList(
            models=[shown(model) for model in found],
            total=len(found),
        )

    async def object_info(args: GetObjectInfo, call: Call) -> ObjectInfo:
        known = await comfyui.object_info()
        if args.node_class is None:
            return ObjectInfo(node_class=None, info=None, node_classes=sorted(known))
        if args.node_class not in known:
            known = await comfyui.object_info(refresh=True)
        info = known.get(args.node_class)
        if info is None:
            matches = closest(args.node_class, known)
            raise NotFound(
                f"This ComfyUI has no node class `{args.node_class}`.",
                hint=f"Did you mean `{matches[0]}`?" if matches else "Without `node_class`, all names are listed.",
                details={"field": "node_class", "value": args.node_class, "closest_matches": matches},
            )
        return ObjectInfo(node_class=args.node_class, info=info, node_classes=[])

    return [
        Tool(name="list-models", args=ListModels, result=ModelList, effect=Effect.READ, run=list_models),
        Tool(name="get-object-info", args=GetObjectInfo, result=ObjectInfo, effect=Effect.READ, run=object_info),
    ]
