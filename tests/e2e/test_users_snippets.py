"""The calls that people already have in their scripts and notes, sent as they are to two live servers."""

import base64
import json
import shutil
import subprocess
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import server_process
from tinyflux import sample_dataset_path

MODEL = "pixel_cat_birthday_lora_v2/pixel_cat_birthday_lora_v2.safetensors"


@dataclass(frozen=True)
class Servers:
    """Both servers, and what has been trained on them."""

    aitk: str
    comfy: str
    config: dict[str, Any]


def answer_of(url: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call a tool as a script does; returns the whole envelope."""
    body = {"tool": tool, "arguments": arguments}
    response = httpx.post(f"{url}/mcp/tool", headers={"Content-Type": "application/json"}, json=body, timeout=120)
    return response.json()


def result_of(url: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call a tool that must succeed; returns its result."""
    answer = answer_of(url, tool, arguments)
    assert answer["success"], answer
    return answer["result"]


def error_of(url: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call a tool that must refuse; returns its error."""
    answer = answer_of(url, tool, arguments)
    assert not answer["success"], answer
    return answer["error"]


def curl(*arguments: str) -> Any:
    """Run curl and return the JSON that it prints; where there is no curl, httpx sends the same."""
    if shutil.which("curl"):
        return json.loads(subprocess.run(["curl", "-s", *arguments], capture_output=True, check=True).stdout)
    url = next(argument for argument in arguments if argument.startswith("http"))
    data = arguments[arguments.index("-d") + 1] if "-d" in arguments else None
    return httpx.request("POST" if data else "GET", url, content=data, timeout=60).json()


def training_config(dataset_path: str) -> dict[str, Any]:
    """Return the training settings of the guide, with the embedded base model and few steps."""
    return {
        "name": "pixel_cat_birthday_lora_v2",
        "model_name": "tinyflux",
        "dataset_path": dataset_path,
        "resolution": 512,
        "steps": 12,
        "rank": 16,
        "alpha": 16,
        "low_vram": True,
        "gradient_checkpointing": True,
        "mixed_precision": "fp16",
        "trigger_word": "pixel_cat",
        "test_prompts": ["pixel_cat, a snowshoe cat sitting elegantly"],
    }


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Servers]:
    """Run both servers, and train a LoRA on the sample dataset."""
    folder = tmp_path_factory.mktemp("snippets")
    aitk_arguments = ("--data-dir", str(folder / "aitk"), "--trainer", "embedded")
    comfy_arguments = ("--data-dir", str(folder / "comfy"), "--backend", "embedded")
    with (
        server_process("aitk_mcp", *aitk_arguments) as (_, aitk),
        server_process("comfy_mcp", *comfy_arguments) as (_, comfy),
    ):
        images = [
            {
                "filename": path.name,
                "content": base64.b64encode(path.read_bytes()).decode(),
                "caption": path.with_suffix(".txt").read_text("utf-8"),
            }
            for path in sorted(sample_dataset_path().glob("*.png"))
        ]
        dataset = result_of(aitk, "upload-dataset", {"dataset_name": "pixel_cat_dataset", "images": images})
        assert Path(dataset["path"]).is_absolute()
        assert Path(dataset["size_file"]).name == ".aitk_size.json"
        config = result_of(aitk, "create-training-config", training_config(dataset["path"]))
        job = result_of(aitk, "start-training", {"config_name": config["name"]})
        job = result_of(aitk, "wait-training", {"job_id": job["job_id"], "wait_s": 100})
        assert job["status"] == "completed", job
        yield Servers(aitk, comfy, config)


@pytest.fixture(scope="module")
def content(servers: Servers) -> bytes:
    """Download the trained LoRA as the transfer notes do."""
    arguments = {"model_path": MODEL, "include_metadata": True, "format": "base64"}
    model = result_of(servers.aitk, "download-model", arguments)
    data = base64.b64decode(model["content"])
    assert len(data) == model["size"]
    assert json.loads(model["metadata"]["training_info"])["step"] == 12
    assert model["training_config"]["config"]["name"] == "pixel_cat_birthday_lora_v2"
    return data


@pytest.fixture(scope="module")
def lora(servers: Servers, content: bytes) -> str:
    """Upload it in one call; returns the name that LoraLoader takes."""
    arguments = {
        "filename": "pixel_cat_birthday_lora.safetensors",
        "content": base64.b64encode(content).decode(),
        "overwrite": True,
    }
    return result_of(servers.comfy, "upload-lora", arguments)["lora"]["name"]


def test_the_status_commands(servers: Servers) -> None:
    first = curl(f"{servers.aitk}/api/jobs")["jobs"][0]
    assert first["name"] == "pixel_cat_birthday_lora_v2"
    assert first["status"] == "completed"
    assert curl(f"{servers.aitk}/api/v2/training/status")["jobs"][0] == first


@pytest.mark.parametrize("path", ["/mcp/tools", "/mcp/tools/list"])
def test_no_tool_is_hidden(servers: Servers, path: str) -> None:
    names = {tool["name"] for tool in curl(f"{servers.comfy}{path}")["tools"]}
    assert {f"upload-lora-chunked-{step}" for step in ("start", "append", "finish")} <= names


def test_list_and_inspect_by_curl(servers: Servers, lora: str) -> None:
    header = ("-H", "Content-Type: application/json")
    listed = curl("-X", "POST", f"{servers.comfy}/mcp/tool", *header, "-d", '{"tool": "list-loras", "arguments": {}}')
    assert lora in [entry["name"] for entry in listed["result"]["loras"]]
    body = json.dumps({"tool": "get-lora-info", "arguments": {"lora_name": lora}})
    info = curl("-X", "POST", f"{servers.comfy}/mcp/tool", *header, "-d", body)["result"]
    assert (info["architecture"], info["network"]["rank"], info["trigger_words"]) == ("flux", 16, ["pixel_cat"])
    assert info["training"]["steps"] == 12


def test_the_chunked_upload(servers: Servers, content: bytes) -> None:
    upload_id = str(uuid.uuid4())
    chunk_size = 256 * 1024
    chunks = [content[start : start + chunk_size] for start in range(0, len(content), chunk_size)]
    start = {
        "upload_id": upload_id,
        "filename": "model.safetensors",
        "total_size": len(content),
        "chunk_size": chunk_size,
        "metadata": {"trained_on": "2024-01-01"},
    }
    assert result_of(servers.comfy, "upload-lora-chunked-start", start)["total_chunks"] == len(chunks)
    for index, chunk in enumerate(chunks):
        arguments = {"upload_id": upload_id, "chunk": base64.b64encode(chunk).decode(), "chunk_index": index}
        appended = result_of(servers.comfy, "upload-lora-chunked-append", arguments)
        assert appended["complete"] == (index == len(chunks) - 1)
    finish = {"upload_id": upload_id, "verify_checksum": True}
    finished = result_of(servers.comfy, "upload-lora-chunked-finish", finish)
    assert finished["lora"]["name"] == "model.safetensors"
    # No digest was given, so none was compared.
    assert finished["checksum_verified"] is False


@pytest.mark.parametrize(
    ("tool", "arguments", "cure"),
    [
        ("upload-lora-chunked-start", {"filename": "model.safetensors", "total_chunks": 450}, "total_size"),
        ("upload-lora-chunked-append", {"upload_id": "x", "chunk_data": "QUJD", "chunk_index": 0}, "`chunk`"),
        ("get-lora-info", {"lora_name": "pixel_cat_birthday_lroa.safetensors"}, "pixel_cat_birthday_lora.safetensors"),
    ],
)
def test_classic_mistakes_are_answered_with_their_cure(
    servers: Servers, lora: str, tool: str, arguments: dict[str, Any], cure: str
) -> None:
    error = error_of(servers.comfy, tool, arguments)
    assert cure in f"{error['message']} {error['hint']}"


def test_a_relative_dataset_path_is_answered_with_the_absolute_one(servers: Servers) -> None:
    arguments = training_config("datasets/pixel_cat_dataset") | {"name": "relative"}
    error = error_of(servers.aitk, "create-training-config", arguments)
    assert str(Path(servers.config["config"]["config"]["process"][0]["datasets"][0]["folder_path"])) in error["hint"]


def test_a_gated_model_is_said_before_any_start(servers: Servers) -> None:
    arguments = training_config("pixel_cat_dataset") | {"name": "gated", "model_name": "black-forest-labs/FLUX.1-dev"}
    config = result_of(servers.aitk, "create-training-config", arguments)
    assert any("gated" in warning for warning in config["warnings"])


def flux_graph(lora: str) -> dict[str, Any]:
    """Return the nine nodes of the guide, linked by the names that it gives them."""
    return {
        "CheckpointLoader": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "tinyflux-base.safetensors"},
        },
        "LoraLoader": {
            "class_type": "LoraLoader",
            "inputs": {
                "model": ["CheckpointLoader", 0],
                "clip": ["CheckpointLoader", 1],
                "lora_name": lora,
                "strength_model": 1.0,
                "strength_clip": 1.0,
            },
        },
        "positive_clip": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": "pixel_cat, a birthday cat", "clip": ["LoraLoader", 1]},
        },
        "empty_clip": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["LoraLoader", 1]}},
        "flux_guidance": {
            "class_type": "FluxGuidance",
            "inputs": {"guidance": 3.5, "conditioning": ["positive_clip", 0]},
        },
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "cfg": 1.0,
                "sampler_name": "heunpp2",
                "scheduler": "simple",
                "positive": ["flux_guidance", 0],
                "negative": ["empty_clip", 0],
                "model": ["LoraLoader", 0],
                "latent_image": ["latent", 0],
                "seed": 42,
                "steps": 20,
                "denoise": 1.0,
            },
        },
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["CheckpointLoader", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "birthday"}},
    }


def test_the_flux_workflow_runs(servers: Servers, lora: str) -> None:
    checked = result_of(servers.comfy, "validate-workflow", {"workflow": flux_graph(lora)})
    assert checked["problems"] == []
    done = result_of(servers.comfy, "execute-workflow", {"workflow": flux_graph(lora), "wait_s": 60})
    assert (done["status"], done["engine"]) == ("completed", "embedded")
    picture = httpx.get(done["images"][0]["url"])
    assert picture.content.startswith(b"\x89PNG")


def test_a_null_negative_is_refused_with_its_cure(servers: Servers, lora: str) -> None:
    graph = flux_graph(lora)
    graph["sampler"]["inputs"]["negative"] = None
    error = error_of(servers.comfy, "execute-workflow", {"workflow": graph})
    assert "CLIPTextEncode" in f"{error['message']} {error['hint']}"


def test_sd_style_settings_on_flux_are_each_named(servers: Servers, lora: str) -> None:
    graph = flux_graph(lora)
    del graph["flux_guidance"]
    changes = {"cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "positive": ["positive_clip", 0]}
    graph["sampler"]["inputs"] |= changes
    problems = result_of(servers.comfy, "validate-workflow", {"workflow": graph})["problems"]
    told = " ".join(f"{problem['input']} {problem['message']}" for problem in problems)
    for word in ("cfg", "scheduler", "FluxGuidance"):
        assert word in told


def test_sd_style_requests_on_flux_are_corrected_and_said(servers: Servers) -> None:
    arguments = {"prompt": "a cat", "cfg_scale": 7.0, "sampler": "euler", "scheduler": "normal", "width": 256}
    done = result_of(servers.comfy, "generate-image", arguments | {"height": 256, "seed": 1, "wait_s": 60})
    assert done["status"] == "completed"
    assert any("cfg" in warning for warning in done["warnings"])


def test_a_lora_that_is_not_there_is_named_with_the_closest(servers: Servers, lora: str) -> None:
    error = error_of(servers.comfy, "execute-workflow", {"workflow": flux_graph("pixel_cat_birthday.safetensors")})
    assert lora in json.dumps(error)


def test_a_graph_that_saves_nothing_is_refused(servers: Servers) -> None:
    graph = {
        "3": {"inputs": {"text": "a cat", "clip": ["11", 0]}, "class_type": "CLIPTextEncode"},
        "4": {"inputs": {"width": 1024, "height": 1024, "batch_size": 1}, "class_type": "EmptyLatentImage"},
        "10": {
            "inputs": {
                "seed": 42,
                "steps": 20,
                "cfg": 3.5,
                "sampler_name": "euler",
                "scheduler": "simple",
                "model": ["11", 0],
                "positive": ["3", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
            },
            "class_type": "KSampler",
        },
        "11": {"inputs": {"ckpt_name": "flux1-dev.safetensors"}, "class_type": "CheckpointLoaderSimple"},
    }
    problems = result_of(servers.comfy, "validate-workflow", {"workflow": graph})["problems"]
    assert "tinyflux-base.safetensors" in json.dumps(problems)
    told = " ".join(problem["message"] for problem in problems)
    assert "output" in told


def test_a_file_that_is_no_safetensors_is_refused_and_leaves_nothing(servers: Servers) -> None:
    page = base64.b64encode(b"<!DOCTYPE html><html>401 Unauthorized</html>").decode()
    error = error_of(servers.comfy, "upload-lora", {"filename": "page.safetensors", "content": page})
    assert "page.safetensors" in f"{error['message']} {error['hint']}" or "HTML" in error["message"]
    listed = result_of(servers.comfy, "list-loras", {"query": "page"})
    assert listed["total"] == 0
