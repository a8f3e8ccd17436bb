"""Which of ComfyUI's files on this disk are taken for the ones that it has just written."""

import os
import time
from pathlib import Path

import pytest

from comfy_mcp.engines.comfyui_history import OutputFile
from comfy_mcp.engines.fresh_files import fresh_head


def output(name: str = "a.png", *, subfolder: str = "", kind: str = "output") -> OutputFile:
    return OutputFile("9", name, subfolder, kind, animated=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "output" / "cats").mkdir(parents=True)
    (tmp_path / "output" / "a.png").write_bytes(b"a picture")
    (tmp_path / "output" / "cats" / "b.png").write_bytes(b"another")
    (tmp_path / "secret.png").write_bytes(b"not theirs")
    return tmp_path


def test_a_new_file_is_read(folder: Path) -> None:
    assert fresh_head(folder, output(), 3) == b"a p"
    assert fresh_head(folder, output("b.png", subfolder="cats"), 100) == b"another"


def test_a_file_of_the_same_name_from_another_day_is_not(folder: Path) -> None:
    yesterday = time.time() - 86_400
    os.utime(folder / "output" / "a.png", (yesterday, yesterday))
    assert fresh_head(folder, output(), 3) == b""


@pytest.mark.parametrize(
    "file", [output("none.png"), output(kind="input"), output("secret.png", subfolder=".."), output(subfolder="a.png")]
)
def test_what_is_not_there_is_nothing(folder: Path, file: OutputFile) -> None:
    assert fresh_head(folder, file, 3) == b""
