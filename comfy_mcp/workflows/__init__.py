"""Graphs of ComfyUI: build, check, convert and draw them. Pure: nothing here touches the network or the event loop."""

from comfy_mcp.workflows.build import BuiltGraph, build
from comfy_mcp.workflows.check import check
from comfy_mcp.workflows.families import FamilyGuess, family_of, family_of_architecture
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.problems import Problem, has_errors
from comfy_mcp.workflows.requests import GenerationRequest, LoraUse, Settings, SplitModel

__all__ = [
    "BuiltGraph",
    "FamilyGuess",
    "GenerationRequest",
    "Graph",
    "LoraUse",
    "Problem",
    "Settings",
    "SplitModel",
    "build",
    "check",
    "family_of",
    "family_of_architecture",
    "has_errors",
]
