"""The whole loop by one command, as a person runs it."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image


def test_the_demo_closes_the_loop(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loraloop", "demo", "--json", "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout.strip().splitlines()[-1])

    assert report["dataset"]["images"] == 12
    training = report["training"]
    assert training["status"] == "completed"
    assert training["loss_last"] < 0.88 * training["loss_first"]

    moved = report["transfer"]
    assert moved["checksum_verified"] is True
    assert moved["size_bytes"] > 100_000
    assert len(moved["sha256"]) == 64

    assert report["lora"]["architecture"] == "flux"
    assert report["lora"]["rank"] == 16
    assert report["lora"]["trigger_words"] == ["pixel_cat"]

    effect = report["effect"]
    assert effect["distance_with"] < 0.88 * effect["distance_without"]
    for side in ("without", "with"):
        with Image.open(report["images"][side]) as picture:
            assert picture.size == (512, 512)
    with Image.open(report["images"]["contact_sheet"]) as sheet:
        assert sheet.width > sheet.height > 300


def test_the_demo_says_what_is_wrong_with_its_images(tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "nowhere", "is no folder"), (tmp_path, "holds no image")):
        command = [sys.executable, "-m", "loraloop", "demo", "--images", str(folder)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
