"""Graphs of ComfyUI: build, check, convert and draw them. Pure: nothing here touches the network or the event loop."""

from comfy_mcp.workflows.build import BuiltGraph, build
from comfy_mcp.workflows.build_video import BuiltVideo, build_video
from comfy_mcp.workflows.check import check
from comfy_mcp.workflows.families import FamilyGuess, family_of, family_of_architecture
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.problems import Problem, has_errors
from comfy_mcp.workflows.requests import (
    ControlNetUse,
    GenerationRequest,
    Hires,
    LoraUse,
    SplitModel,
    VideoRequest,
)
from comfy_mcp.workflows.settings import Settings

__all__ = [
    "BuiltGraph",
    "BuiltVideo",
    "ControlNetUse",
    "FamilyGuess",
    "GenerationRequest",
    "Graph",
    "Hires",
    "LoraUse",
    "Problem",
    "Settings",
    "SplitModel",
    "VideoRequest",
    "build",
    "build_video",
    "check",
    "family_of",
    "family_of_architecture",
    "has_errors",
]
