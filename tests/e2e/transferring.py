"""What the tests of transfers share: two live servers, and the script as a person runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcp_toolserver.terminal import Silence
from tests.conftest import ROOT, server_process
from tests.unit.lora_files.files import AI_TOOLKIT_METADATA, FLUX_AI_TOOLKIT, pairs, write
from transfers.options import TransferOptions

SCRIPT = ROOT / "scripts" / "transfer_lora_between_services.py"
NOWHERE = "http://127.0.0.1:9"
SERVED = ("link", "pull", "tus", "chunked")
"""The methods that need comfy_mcp."""


@dataclass(frozen=True)
class Pair:
    """Both servers on their embedded engines, and the folders that they keep."""

    aitk_url: str
    comfy_url: str
    outputs: Path
    comfyui: Path
    home: Path

    @property
    def loras(self) -> Path:
        """Return ComfyUI's loras folder."""
        return self.comfyui / "models" / "loras"

    def trained(self, job: str, rank: int = 4) -> bytes:
        """Put a finished LoRA into the trainer's outputs folder, in the place of what was there."""
        path = self.outputs / job / f"{job}.safetensors"
        path.unlink(missing_ok=True)
        return write(path, pairs(FLUX_AI_TOOLKIT, rank), AI_TOOLKIT_METADATA).read_bytes()

    def run(self, *flags: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script, which finds the servers through its environment."""
        servers = {"AITK_MCP_URL": self.aitk_url, "COMFY_MCP_URL": self.comfy_url, "XDG_STATE_HOME": str(self.home)}
        return subprocess.run(
            [sys.executable, str(SCRIPT), *flags],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            cwd=cwd,
            env=os.environ | servers | environment,
            check=False,
        )

    def events(self, *flags: str) -> list[dict[str, Any]]:
        """Run the script with --json and return what it said."""
        ended = self.run("--json", *flags)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def options(self, **given: Any) -> TransferOptions:
        """Return options for the script as a function."""
        found = TransferOptions(
            aitk_url=self.aitk_url, comfy_url=self.comfy_url, first_wait_s=0.01, state_dir=self.home
        )
        return replace(found, **given)

    def arrived(self, name: str) -> bytes:
        """Return the bytes of a LoRA in ComfyUI."""
        return (self.loras / name).read_bytes()

    def leftovers(self) -> list[Path]:
        """Return what unfinished transfers have left to resume by."""
        return list(self.home.rglob("*.json"))


@contextmanager
def running_pair(folder: Path) -> Generator[Pair]:
    """Run both servers, comfy_mcp told of aitk_mcp."""
    with ExitStack() as stack:
        trainer = server_process("aitk_mcp", "--trainer", "embedded", "--data-dir", str(folder / "aitk"))
        _, aitk_url = stack.enter_context(trainer)
        arguments = ("--backend", "embedded", "--data-dir", str(folder / "comfy"), "--aitk-url", aitk_url)
        _, comfy_url = stack.enter_context(server_process("comfy_mcp", *arguments))
        yield Pair(aitk_url, comfy_url, folder / "aitk" / "output", folder / "comfy" / "comfyui", folder / "home")


class Heard(Silence):
    """Remember the events, and the values of each."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.values: list[dict[str, object]] = []

    def say(self, event: str, text: str, **values: object) -> None:
        """Remember."""
        self.events.append(event)
        self.values.append(values)
