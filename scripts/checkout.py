"""Let the scripts of a checkout run by themselves, with its packages and with the Python of its environment."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"


def prepare() -> None:
    """Make the project's packages importable; starts over with the environment's Python where libraries are missing."""
    if find_spec("anyio") is None:
        if Path(sys.executable) == PYTHON or not PYTHON.exists():
            raise SystemExit("LoRA Loop's libraries are not installed: run ./scripts/demo.sh once, or `pip install .`.")
        os.execv(PYTHON, [str(PYTHON), *sys.orig_argv[1:]])
    sys.path[1:1] = [str(ROOT), str(ROOT / "shared")]
