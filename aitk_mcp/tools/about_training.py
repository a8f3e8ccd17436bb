"""The tool that tells everything about one training: its config, its jobs and its models."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from aitk_mcp.configs.configs import Configs
from aitk_mcp.configs.files import StoredConfig
from aitk_mcp.documents import dataset_path
from aitk_mcp.models.port import ModelHome
from aitk_mcp.tools.models import ModelSummary, summary_of
from aitk_mcp.tools.training import TrainingJob, describe
from aitk_mcp.training.jobs import TrainingJobs
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import NotFound, closest
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


class GetTrainingInfo(Arguments):
    """Tell everything about one training in one answer: its config, its dataset, its jobs and the models they saved."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "config_name": "the argument is `name`.",
        "job_id": "the argument is `name`; it takes a job id too.",
    }

    name: str = Field(min_length=1, description="Name of a config or of a training, or the id of a job.")


class TrainingInfo(Result):
    """One training from its config to its models."""

    name: str = Field(description="Name of the training.")
    base_model: str | None = Field(description="The model it trains on.")
    architecture: str | None = Field(description="AI Toolkit's `arch`.")
    trigger_word: str | None = Field(description="The trigger word.")
    dataset_path: str | None = Field(description="The dataset's folder.")
    config_path: str | None = Field(description="Where the config is kept; null where it is stored no more.")
    config: dict[str, Any] | None = Field(description="The config as it is stored now; jobs keep their own copy.")
    jobs: list[TrainingJob] = Field(description="Its jobs, newest first.")
    models: list[ModelSummary] = Field(description="The LoRAs that it has saved, newest first.")


def about_training_tools(configs: Configs, jobs: TrainingJobs, models: ModelHome) -> list[AnyTool]:
    """Return the tool over these."""

    async def info(args: GetTrainingInfo, call: Call) -> TrainingInfo:
        reports, _ = await jobs.all()
        by_id = next((report for report in reports if report.job_id == args.name), None)
        name = by_id.name if by_id is not None else args.name
        config = await _config(configs, by_id.config_name if by_id is not None else name)
        own = [report for report in reports if name in (report.name, report.config_name)]
        every = await models.all()
        saved = [model for model in every if model.job == name]
        if config is None and not own and not saved:
            known = [report.name for report in reports] + [each.name for each in await configs.all()]
            matches = closest(args.name, dict.fromkeys([*known, *(model.job for model in every if model.job)]))
            raise NotFound(
                f"There is no training `{args.name}`.",
                hint=f"Did you mean `{matches[0]}`?" if matches else "list-configs and list-training-jobs show all.",
                details={"field": "name", "value": args.name, "closest_matches": matches},
            )
        training = config.training if config is not None else None
        model = training.block("model") if training is not None else dict[str, Any]()
        datasets = training.datasets if training is not None else ()
        return TrainingInfo(
            name=name,
            base_model=model.get("name_or_path"),
            architecture=model.get("arch"),
            trigger_word=training.trigger_word if training is not None else None,
            dataset_path=next((dataset_path(dataset) for dataset in datasets), None),
            config_path=str(config.path) if config is not None else None,
            config=config.document if config is not None else None,
            jobs=[describe(report) for report in own],
            models=[summary_of(model, call) for model in saved],
        )

    return [Tool(name="get-training-info", args=GetTrainingInfo, result=TrainingInfo, effect=Effect.READ, run=info)]


async def _config(configs: Configs, name: str) -> StoredConfig | None:
    try:
        return await configs.get(name)
    except NotFound:
        return None
