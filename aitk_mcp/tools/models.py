"""The tools for the LoRAs that were trained: list, describe, export, download."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import pybase64
from anyio import to_thread
from pydantic import AliasChoices, Field

from aitk_mcp.models.links import Links
from aitk_mcp.models.models import Kind, Model, Stage
from aitk_mcp.models.port import ModelHome
from aitk_mcp.recipes.names import check_job_name
from aitk_mcp.training.jobs import TrainingJobs
from lora_files.describe import LoraNetwork
from lora_files.training import Training
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import Conflict, InvalidArguments, TooLarge
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

MAX_BASE64_BYTES = 64 * 1024 * 1024

_PATH = Field(
    validation_alias=AliasChoices("model_path", "model_name"),
    description="Path within the outputs folder, as list-exported-models gives it, or the name of a finished job.",
)


class ListExportedModels(Arguments):
    """List the LoRAs that trainings have saved, newest first: finished ones, checkpoints on the way, and exports.

    The two files of a Wan 2.2 LoRA (high and low noise) stand together and name each other.
    """

    query: str | None = Field(None, description="Only those whose path holds this text.")
    finished: bool | None = Field(None, description="true: only finished LoRAs and exports; false: only checkpoints.")
    limit: int = Field(100, ge=1, le=1000, description="At most this many.")


class ModelSummary(Result):
    """A LoRA in a list."""

    model_path: str = Field(description="What download-model takes.")
    filename: str = Field(description="Its file name.")
    job: str | None = Field(description="Name of the job that made it.")
    kind: Kind = Field(description="final, checkpoint, exported, or other for files of another origin.")
    finished: bool = Field(description="Whether it is whole and a training ended with it.")
    step: int | None = Field(description="Steps that it was trained for.")
    epoch: int | None = Field(description="Passes over the images that it was trained for, as its file tells.")
    stage: Stage | None = Field(description="Which of the two models of Wan 2.2 it is for; null for any other.")
    partner: str | None = Field(description="The LoRA for the other stage: the two are used together.")
    size_bytes: int = Field(description="Size of the file.")
    modified: datetime | None = Field(description="When it was written; null where AI Toolkit does not tell it.")
    architecture: str | None = Field(description="Kind of model it fits.")
    rank: int | None = Field(description="Rank of most layers.")
    trigger_words: list[str] = Field(description="Words that call its subject in a prompt.")
    sha256: str | None = Field(description="Digest of the file in hex, where it is known; get-model-info computes it.")
    problem: str | None = Field(description="Why it cannot be read, such as while it is being written; null mostly.")
    url: str = Field(description="Where to download it; serves byte ranges.")


class ModelList(Result):
    """The LoRAs."""

    models: list[ModelSummary] = Field(description="The LoRAs, newest first.")
    total: int = Field(description="How many match, those past `limit` included.")
    outputs_folder: str = Field(description="The folder that the paths are relative to.")


class GetModelInfo(Arguments):
    """Describe a trained LoRA from its file: architecture, rank, trigger words, training, metadata, and its config."""

    model_path: str = _PATH


class ModelDetails(ModelSummary):
    """A LoRA in full."""

    path: str = Field(description="Absolute path on the trainer's machine; of an export, on the machine that keeps it.")
    base_model: str | None = Field(description="The model it was trained on, as precisely as known.")
    network: LoraNetwork | None = Field(description="Kind, rank, alpha, data type and extent.")
    key_format: str | None = Field(description="Naming of its layers.")
    training: Training | None = Field(description="How it was trained, as its file tells.")
    loader: str | None = Field(description="The ComfyUI node to load it with.")
    suggested_strength: float | None = Field(description="A strength to begin with.")
    warnings: list[str] = Field(description="What may go wrong with it.")
    metadata: dict[str, str] = Field(description="The file's metadata, as it stands there.")
    training_config: dict[str, Any] | None = Field(description="The config it was trained by, where it is still there.")


class ExportModel(Arguments):
    """Keep the LoRA of a job under a name of its own, where no later training changes or deletes it.

    The finished LoRA is copied byte for byte to `_exported/` in the outputs folder; of a job that has not finished,
    its newest checkpoint. AI Toolkit deletes old checkpoints, and a resumed or repeated job overwrites its final file.
    """

    classic_mistakes: ClassVar[Mapping[str, str]] = {"output_format": "the argument is `format`."}

    job_id: str = Field(description="The job, as list-training-jobs names it.")
    format: Literal["safetensors"] = Field("safetensors", description="Only safetensors: the other formats run code.")
    name: str | None = Field(None, description="Name of the export; that of the file when left out.")
    overwrite: bool = Field(False, description="Replace another export of this name.")


class ExportedModel(Result):
    """A LoRA that was exported."""

    job_id: str = Field(description="The job.")
    source: str = Field(description="What was copied, within the outputs folder.")
    format: Literal["safetensors"] = Field(description="Format of the file.")
    model_path: str = Field(description="The export: what download-model takes.")
    path: str = Field(description="Its absolute path on the trainer's machine.")
    step: int | None = Field(description="Steps that it was trained for.")
    size_bytes: int = Field(description="Size of the file.")
    sha256: str = Field(description="Digest of the file in hex.")
    url: str = Field(description="Where to download it.")


class DownloadModel(Arguments):
    """Download a trained LoRA, with its metadata and training config: as base64 within the answer, or as a URL.

    Base64 is bounded; `format: url` and the transfer script carry any size.
    """

    model_path: str = _PATH
    include_metadata: bool = Field(True, description="Also answer metadata and training config.")
    format: Literal["base64", "url"] = Field(
        "base64",
        validation_alias=AliasChoices("format", "encoding"),
        description="`base64` for small files, `url` for any size.",
    )


class ModelDownload(Result):
    """A LoRA's bytes, or where to get them."""

    model_path: str = Field(description="Path within the outputs folder.")
    filename: str = Field(description="Its file name.")
    size: int = Field(description="Size in bytes.")
    path: str = Field(description="Absolute path on the trainer's machine; of an export, on the machine that keeps it.")
    sha256: str = Field(description="Digest of the file in hex.")
    etag: str | None = Field(
        description="Tag of the state of the file that has this digest, as its URL answers; null for another machine's."
    )
    link_safe: bool = Field(
        description="Whether a hard link to `path` keeps these bytes, whatever the trainer does; else copy the file."
    )
    format: Literal["base64", "url"] = Field(description="Which of the two follows.")
    content: str | None = Field(description="The file as base64.")
    url: str | None = Field(description="Address of the file; serves byte ranges.")
    metadata: dict[str, str] | None = Field(description="The file's metadata.")
    training_config: dict[str, Any] | None = Field(description="The config it was trained by.")


class DeleteModel(Arguments):
    """Delete one trained LoRA file for good: a checkpoint, a finished LoRA or an export.

    Its path must be given in full, as list-exported-models gives it. Files of a job that is queued or running are
    refused, since its trainer reads and writes them; sample pictures and the job's other files stay.
    """

    model_path: str = Field(
        validation_alias=AliasChoices("model_path", "model_name"),
        description="Path within the outputs folder, exactly as list-exported-models gives it.",
    )


class ModelDeleted(ModelSummary):
    """A LoRA that is gone: what it was."""

    left_of_job: list[str] = Field(description="The files of the same job that are still there.")


def model_tools(
    models: ModelHome, jobs: TrainingJobs, links: Links, *, max_base64_bytes: int = MAX_BASE64_BYTES
) -> list[AnyTool]:
    """Return the tools over these models; an export is asked for by the id of a job."""

    async def list_models(args: ListExportedModels, call: Call) -> ModelList:
        found = [
            model
            for model in await models.all()
            if (args.query is None or args.query.lower() in model.model_path.lower())
            and args.finished in (None, model.finished)
        ]
        return ModelList(
            models=[summary_of(model, call) for model in found[: args.limit]],
            total=len(found),
            outputs_folder=str(models.outputs),
        )

    async def get_info(args: GetModelInfo, call: Call) -> ModelDetails:
        model = await models.find(args.model_path)
        found = model.description
        digest = await models.sha256(model, call.report)
        return ModelDetails(
            **summary_of(replace(model, sha256=digest), call).model_dump(),
            path=str(model.path),
            base_model=found.base_model if found else None,
            network=found.network if found else None,
            key_format=found.key_format if found else None,
            training=found.training if found else None,
            loader=found.loader if found else None,
            suggested_strength=found.suggested_strength if found else None,
            warnings=found.warnings if found else [],
            metadata=found.metadata if found else {},
            training_config=await models.training_config(model),
        )

    async def export(args: ExportModel, call: Call) -> ExportedModel:
        report = await jobs.status(args.job_id)
        if report.model_path is None:
            raise Conflict(
                f"Job `{args.job_id}` is {report.status} and has saved nothing yet.",
                hint="wait-training waits for its end, save-checkpoint makes a running job save.",
                details={"job_id": args.job_id, "status": report.status},
            )
        source = await models.find(report.model_path)
        name = check_job_name(args.name if args.name is not None else source.path.stem)
        exported = await models.export(source, name.removesuffix(".safetensors"), overwrite=args.overwrite)
        return ExportedModel(
            job_id=args.job_id,
            source=source.model_path,
            format=args.format,
            model_path=exported.model_path,
            path=str(exported.path),
            step=exported.step,
            size_bytes=exported.size_bytes,
            sha256=await models.sha256(exported, call.report),
            url=_url(exported, call),
        )

    async def download(args: DownloadModel, call: Call) -> ModelDownload:
        model = await models.find(args.model_path)
        url = _url(model, call)
        if args.format == "base64" and model.size_bytes > max_base64_bytes:
            raise TooLarge(
                f"`{model.model_path}` has {model.size_bytes} bytes, and base64 is given up to {max_base64_bytes}.",
                hint=f"Ask with `format: url` and fetch {url} (it serves byte ranges), or run "
                "scripts/transfer_lora_between_services.py, which moves a LoRA of any size to ComfyUI.",
                details={"size_bytes": model.size_bytes, "max_bytes": max_base64_bytes, "url": url},
            )
        if model.sha256 is None:
            sha256 = await models.sha256(model, call.report)
            model = await models.find(model.model_path)
            if model.sha256 is None:
                # Its disk is another machine's, or it changed since: the digest goes without a tag then.
                model = replace(model, sha256=sha256, etag=None)
        assert model.sha256 is not None
        content: str | None = None
        if args.format == "base64":
            data = await models.read(model)
            content = await to_thread.run_sync(lambda: pybase64.b64encode(data).decode("ascii"))
        metadata = dict(model.description.metadata) if model.description else {}
        return ModelDownload(
            model_path=model.model_path,
            filename=model.path.name,
            size=model.size_bytes,
            path=str(model.path),
            sha256=model.sha256,
            etag=model.etag,
            link_safe=await links.are_safe(model),
            format=args.format,
            content=content,
            url=url if args.format == "url" else None,
            metadata=metadata if args.include_metadata else None,
            training_config=await models.training_config(model) if args.include_metadata else None,
        )

    async def delete(args: DeleteModel, call: Call) -> ModelDeleted:
        model = await models.find(args.model_path)
        if args.model_path != model.model_path:
            raise InvalidArguments(
                f"`model_path` is {args.model_path!r}, which is short for `{model.model_path}`.",
                hint=f"To delete that, give `{model.model_path}`.",
                details={
                    "field": "model_path",
                    "value": args.model_path,
                    "closest_matches": [model.model_path],
                },
            )
        reports, _ = await jobs.all()
        busy = next((each for each in reports if each.name == model.job and not each.has_ended), None)
        if busy is not None:
            raise Conflict(
                f"`{model.model_path}` belongs to job `{busy.job_id}`, which is {busy.status}.",
                hint="Wait for its end with wait-training, or stop it with stop-training, and delete then.",
                details={"model_path": model.model_path, "job_id": busy.job_id, "status": busy.status},
            )
        summary = summary_of(model, call)
        await models.delete(model)
        left = [each.model_path for each in await models.all() if model.job is not None and each.job == model.job]
        return ModelDeleted(**summary.model_dump(), left_of_job=left)

    return [
        Tool(
            name="list-exported-models", args=ListExportedModels, result=ModelList, effect=Effect.READ, run=list_models
        ),
        Tool(name="get-model-info", args=GetModelInfo, result=ModelDetails, effect=Effect.READ, run=get_info),
        Tool(name="export-model", args=ExportModel, result=ExportedModel, effect=Effect.WRITE, run=export),
        Tool(name="download-model", args=DownloadModel, result=ModelDownload, effect=Effect.READ, run=download),
        Tool(name="delete-model", args=DeleteModel, result=ModelDeleted, effect=Effect.DESTROY, run=delete),
    ]


def summary_of(model: Model, call: Call) -> ModelSummary:
    """Return a LoRA as a list shows it."""
    found = model.description
    return ModelSummary(
        model_path=model.model_path,
        filename=model.path.name,
        job=model.job,
        kind=model.kind,
        finished=model.finished,
        step=model.step,
        epoch=found.training.epoch if found else None,
        stage=model.stage,
        partner=model.partner,
        size_bytes=model.size_bytes,
        modified=datetime.fromtimestamp(model.modified, UTC) if model.modified is not None else None,
        architecture=found.architecture if found else None,
        rank=found.network.rank if found else None,
        trigger_words=found.trigger_words if found else [],
        sha256=model.sha256,
        problem=model.problem,
        url=_url(model, call),
    )


def _url(model: Model, call: Call) -> str:
    return f"{call.base_url}/models/{quote(model.model_path)}"
