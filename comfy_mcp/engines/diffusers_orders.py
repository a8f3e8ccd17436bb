"""PURE: what a rendering by diffusers was asked for, as a job's record and a picture's text keep it."""

from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict

from comfy_mcp.workflows.graphs import Graph

NODE_CLASS = "DiffusersSampler"
NODE_ID = "1"


class LoraOrder(BaseModel):
    """A LoRA by its name, and how strongly it works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    strength: float


class PictureOrder(BaseModel):
    """Say what is rendered, by names: `model` is a folder, `input_image` and `mask` are pictures; sides are pixels.

    It is the one node of the graph that a job's record keeps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    prompt: str
    negative_prompt: str
    width: int | None = None
    height: int | None = None
    steps: int
    guidance: float
    sampler: str
    scheduler: str
    seed: int
    batch_size: int
    filename_prefix: str
    loras: tuple[LoraOrder, ...] = ()
    input_image: str | None = None
    mask: str | None = None
    denoise: float = 1.0

    def as_graph(self) -> Graph:
        """Return a graph of one node."""
        return {NODE_ID: {"class_type": NODE_CLASS, "inputs": self.model_dump(mode="json", exclude_none=True)}}


def order_of(graph: Graph) -> PictureOrder:
    """Return the order that `as_graph` made into a graph."""
    return PictureOrder.model_validate(graph[NODE_ID]["inputs"])


def parameters_text(order: PictureOrder, width: int, height: int) -> str:
    """Return an order as the web UI of Stable Diffusion writes it into pictures, for the tools that read that."""
    said: dict[str, object] = {
        "Steps": order.steps,
        "Sampler": order.sampler,
        "Schedule type": order.scheduler,
        "CFG scale": order.guidance,
        "Seed": order.seed,
        "Size": f"{width}x{height}",
        "Model": order.model,
    }
    if order.input_image is not None:
        said["Denoising strength"] = order.denoise
    loras = "".join(f" <lora:{PurePosixPath(lora.name).stem}:{lora.strength}>" for lora in order.loras)
    negative = [f"Negative prompt: {order.negative_prompt}"] if order.negative_prompt else []
    return "\n".join([order.prompt + loras, *negative, ", ".join(f"{name}: {value}" for name, value in said.items())])
