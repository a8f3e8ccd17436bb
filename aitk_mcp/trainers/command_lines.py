"""How trainers are started."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# What is printed must reach the log at once, and in UTF-8, whatever the locale.
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
# GPU ids are nvidia-smi's; the paths of this server's Python are none of AI Toolkit's.
_AI_TOOLKIT_ENVIRONMENT = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONPATH": ""}
# More threads than free cores slow numpy down many times over on matrices as small as tinyflux's.
_EMBEDDED_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """How a trainer is started: the command before the config's path, and the folder that it runs in.

    `heeds_wishes`: SIGUSR1 makes it save, SIGUSR2 draw its samples. `only_slot`: it uses no GPU, and one job runs at a
    time. `program`: the file without which nothing can be started.
    """

    engine: str
    command: tuple[str, ...]
    working_folder: Path
    environment: Mapping[str, str]
    heeds_wishes: bool = False
    only_slot: str | None = None
    program: Path | None = None

    @classmethod
    def ai_toolkit(cls, folder: Path, python: Path | None = None) -> "CommandLine":
        """Return AI Toolkit's own; its virtual environment's Python where it has one and none is given."""
        own = [folder / "venv" / "bin" / "python", folder / ".venv" / "bin" / "python"]
        chosen = python or next((path for path in own if path.exists()), Path(sys.executable))
        return cls(
            engine="cli",
            command=(str(chosen), str(folder / "run.py")),
            working_folder=folder,
            environment={**_ENVIRONMENT, **_AI_TOOLKIT_ENVIRONMENT},
            program=folder / "run.py",
        )

    @classmethod
    def embedded(cls, folder: Path) -> "CommandLine":
        """Return the embedded trainer's."""
        return cls(
            engine="embedded",
            command=(sys.executable, "-m", "aitk_mcp.embedded.run"),
            working_folder=folder,
            environment={**_ENVIRONMENT, **_EMBEDDED_ENVIRONMENT},
            heeds_wishes=True,
            only_slot="cpu",
        )
