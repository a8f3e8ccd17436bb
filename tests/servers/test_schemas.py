"""Every tool's schemas are held by a snapshot: names on the wire are frozen once they have landed."""

import json
from pathlib import Path
from typing import Any

import pytest

import aitk_mcp.app
import comfy_mcp.app
from aitk_mcp.settings import AitkSettings
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.rest_door import describe_tool

SNAPSHOTS = Path(__file__).parent / "schemas"

CONTRACT = {
    "comfy_mcp": [
        *("list-loras", "get-lora-info", "upload-lora", "download-lora", "delete-lora"),
        *("upload-lora-chunked-start", "upload-lora-chunked-append", "upload-lora-chunked-status"),
        *("upload-lora-chunked-abort", "upload-lora-chunked-finish", "list-uploads"),
        *("list-models", "upload-image", "execute-workflow", "validate-workflow", "generate-image", "generate-video"),
        *("list-workflows", "get-workflow", "get-job", "wait-job", "cancel-job", "list-jobs"),
        *("get-object-info", "get-system-info"),
    ],
    "aitk_mcp": [
        *("upload-dataset", "list-datasets", "get-dataset", "create-training-config", "validate-config"),
        *("list-configs", "get-config", "start-training", "get-training-status", "wait-training"),
        *("stop-training", "list-training-jobs", "get-training-logs", "get-training-loss", "list-samples"),
        *("list-exported-models", "get-model-info", "export-model", "download-model", "get-system-stats"),
    ],
}


def described(name: str, data_dir: Path) -> dict[str, dict[str, Any]]:
    """Return what a server's lists show, by tool."""
    if name == "comfy_mcp":
        tools = comfy_mcp.app.build(ComfySettings(data_dir=data_dir, backend="embedded")).toolbox.tools
    else:
        tools = aitk_mcp.app.build(AitkSettings(data_dir=data_dir, trainer="embedded")).toolbox.tools
    return {tool.name: describe_tool(tool) for tool in tools}


@pytest.mark.parametrize("name", CONTRACT)
def test_the_schemas_are_as_they_landed(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    tools = described(name, tmp_path)
    folder = SNAPSHOTS / name
    if pytestconfig.getoption("--update-schemas"):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*.json"):
            stale.unlink()
        for tool, description in tools.items():
            text = json.dumps(description, indent=1, sort_keys=True, ensure_ascii=False)
            (folder / f"{tool}.json").write_text(text + "\n", "utf-8")
    landed = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    assert sorted(landed) == sorted(tools)
    for tool, description in tools.items():
        assert json.loads(json.dumps(description)) == landed[tool], f"{tool}: see CONTRIBUTING.md"


@pytest.mark.parametrize("name", CONTRACT)
def test_every_tool_of_the_contract_is_there_and_explained(name: str, tmp_path: Path) -> None:
    tools = described(name, tmp_path)
    assert set(CONTRACT[name]) <= set(tools)
    for tool, description in tools.items():
        assert description["description"], tool
        for argument, schema in description["inputSchema"]["properties"].items():
            assert schema.get("description"), f"{tool}: {argument}"
