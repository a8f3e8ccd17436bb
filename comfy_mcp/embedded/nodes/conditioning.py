"""The nodes that turn prompts into conditioning."""

from comfy_mcp.embedded.nodes.definitions import Input, NodeDefinition, NodeResult, Output, Run
from comfy_mcp.embedded.nodes.models import Conditioning, TextEncoder
from tinyflux import encode_prompt, null_prompt

_CONDITIONING = Output("CONDITIONING", "CONDITIONING", "What the model is told to render.")


def _encode(run: Run, *, text: str, clip: TextEncoder | None) -> NodeResult:
    if clip is None:
        raise RuntimeError("The `clip` input is null: connect it to a loader that has a text encoder.")
    return NodeResult(([(encode_prompt(text), {})],))


def _guide(run: Run, *, conditioning: Conditioning, guidance: float) -> NodeResult:
    return NodeResult(([(entry[0], {**entry[1], "guidance": guidance}) for entry in conditioning],))


def _zero_out(run: Run, *, conditioning: Conditioning) -> NodeResult:
    return NodeResult(([(null_prompt(), dict(entry[1])) for entry in conditioning],))


CONDITIONERS = (
    NodeDefinition(
        "CLIPTextEncode",
        "CLIP Text Encode (Prompt)",
        "conditioning",
        "Turn a text into what guides the model.",
        (
            Input("text", "STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The text to encode."}),
            Input("clip", "CLIP", {"tooltip": "The text encoder."}),
        ),
        (_CONDITIONING,),
        _encode,
    ),
    NodeDefinition(
        "FluxGuidance",
        "FluxGuidance",
        "advanced/conditioning/flux",
        "Set the guidance that a FLUX model takes as an input. Tinyflux knows 1 to 5, and takes more for 5.",
        (
            Input("conditioning", "CONDITIONING", {}),
            Input("guidance", "FLOAT", {"default": 3.5, "min": 0.0, "max": 100.0, "step": 0.1}),
        ),
        (_CONDITIONING,),
        _guide,
    ),
    NodeDefinition(
        "ConditioningZeroOut",
        "ConditioningZeroOut",
        "advanced/conditioning",
        "Replace conditioning by zeros: the negative of a model that takes none.",
        (Input("conditioning", "CONDITIONING"),),
        (_CONDITIONING,),
        _zero_out,
    ),
)
