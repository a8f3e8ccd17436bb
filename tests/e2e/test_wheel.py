"""The wheel, installed alone into an empty environment."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mcp_toolserver import __version__

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    *("aitk_mcp", "comfy_mcp", "lora_files", "mcp_toolserver", "tinyflux"),
    *("loraloop.py", "transfer_lora_between_services.py", "transfers", f"loraloop-{__version__}.dist-info"),
}
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_exactly_these_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == TOP_LEVEL
    assert "tinyflux/weights/tinyflux-base.safetensors" in names
    assert sum(name.startswith("tinyflux/sample_dataset/") and name.endswith(".png") for name in names) == 12
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv") or str(ROOT / ".venv" / "uv" / "bin" / "uv")
    python = tmp_path / "venv" / "bin" / "python"
    for arguments in (
        ["venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")],
        ["pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(ROOT / "requirements.lock")],
        ["pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel)],
    ):
        subprocess.run([uv, *arguments], check=True)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        path = str(tmp_path / "venv" / "bin" / command[0])
        return subprocess.run(
            [path, *command[1:]], capture_output=True, text=True, timeout=240, cwd=tmp_path, env=BARE, check=False
        )

    assert run("loraloop", "--version").stdout.strip() == f"loraloop {__version__}"
    assert "--method" in run("loraloop", "transfer", "--help").stdout
    demo = run("loraloop", "demo", "--steps", "20", "--out", str(tmp_path / "out"))
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert (tmp_path / "out" / "contact_sheet.png").is_file()
    for command in ("comfy-mcp", "aitk-mcp"):
        assert "--transport" in run(command, "--help").stdout
