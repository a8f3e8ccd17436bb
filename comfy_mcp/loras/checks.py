"""Whether a LoRA fits a checkpoint: what ComfyUI would only say in its log, after it has rendered without effect."""

from dataclasses import dataclass

from anyio import to_thread

from comfy_mcp.loras.info import LoraInfo
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.loras.remote import out_of_reach
from comfy_mcp.models.folders import ModelFolders
from comfy_mcp.models.models import CHECKPOINTS, DIFFUSION_MODELS, LORAS, Models, find_name
from lora_files.fit import Fit, check_fit
from lora_files.header import read_header
from mcp_toolserver.errors import InvalidArguments


@dataclass(frozen=True, slots=True)
class LoraCheck:
    """A LoRA, the checkpoint as its loader names it, and how they fit; `message` is for people."""

    lora: LoraInfo
    checkpoint: str
    fit: Fit
    message: str


class LoraChecks:
    """Compare LoRAs with the models that ComfyUI has."""

    def __init__(self, library: LoraLibrary, models: Models, folders: ModelFolders) -> None:
        self._library = library
        self._models = models
        self._folders = folders

    async def check(self, lora_name: str, checkpoint: str) -> LoraCheck:
        """Compare a LoRA's layers with a checkpoint's.

        Raises NotFound for either name with the closest ones, InvalidArguments for a file whose header cannot be read,
        and Forbidden for a LoRA on another machine.
        """
        lora = await self._library.info(lora_name, hashes=False)
        if lora.path is None:
            raise out_of_reach(lora.name, "compare")
        if lora.description is None:
            raise InvalidArguments(
                f"`{lora.name}` cannot be compared. {lora.problem}",
                hint="Send a usable .safetensors file in its place.",
                details={"field": "lora_name", "value": lora.name},
            )
        checkpoints = await self._models.names(CHECKPOINTS)
        names = (*checkpoints, *await self._models.names(DIFFUSION_MODELS))
        name = find_name(checkpoint, names, field="checkpoint", what="checkpoint")
        header = await self._folders.header(CHECKPOINTS if name in checkpoints else DIFFUSION_MODELS, name)
        if header is None:
            raise InvalidArguments(
                f"The header of checkpoint `{name}` cannot be read here: it is on another machine, or no safetensors.",
                hint=f"`{lora.name}` is for {lora.architecture} models; `list-models` names the checkpoints' families.",
                details={"field": "checkpoint", "value": name, "lora_architecture": lora.architecture},
            )
        fit = check_fit(await to_thread.run_sync(read_header, lora.path), header)
        return LoraCheck(lora, name, fit, _in_words(lora, fit))

    async def fit(self, lora_name: str, checkpoint: str) -> Fit | None:
        """Compare two files by the names that their loaders have; None where a header cannot be read here."""
        lora = await self._folders.header(LORAS, lora_name)
        model = None
        for kind in (CHECKPOINTS, DIFFUSION_MODELS) if lora is not None else ():
            model = model or await self._folders.header(kind, checkpoint)
        return None if lora is None or model is None else await to_thread.run_sync(check_fit, lora, model)


def _in_words(lora: LoraInfo, fit: Fit) -> str:
    if not fit.is_lora:
        return "It will have no effect on the picture: none of its tensors is named as a LoRA's."
    if not fit.layers:
        return "It changes text encoders alone: whether it fits depends on the CLIP model that the workflow loads."
    if fit.verdict == "unknown":
        return "The checkpoint is of no architecture known here; nothing can be said before it is tried."
    if fit.verdict == "fits":
        return f"All {fit.layers} layers find their place."
    lost = fit.layers - fit.matched
    logged = " and ".join(
        line
        for line, said in (("`lora key not loaded`", fit.not_found), ("`ERROR lora … shape`", fit.mismatched))
        if said
    )
    effect = f"{lost} of {fit.layers} layers will be left out, and the log says {logged}"
    if fit.verdict == "partly":
        return f"It works in part: {effect}."
    others = lora.architecture != fit.checkpoint_architecture
    cause = f" It is for {lora.architecture}, the checkpoint is {fit.checkpoint_architecture}." if others else ""
    if fit.text_encoder_layers:
        return f"Nothing but its text encoder layers can have an effect: {effect}.{cause}"
    return f"It will have no effect on the picture: {effect}.{cause}"
