"""check-dataset: each finding by name, its cure as a call that works, and the verdict that follows."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcp_toolserver.errors import InvalidArguments, NotFound
from mcp_toolserver.tools import Call, Toolbox
from tests.servers.aitk import call, image_bytes, toolbox_in


def drawn(seed: int, width: int = 512, height: int = 512, form: str = "PNG") -> bytes:
    """Return the bytes of a picture that differs for each seed."""
    coarse = np.random.RandomState(seed).randint(0, 255, (6, 6, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, form)
    return file.getvalue()


def sent(filename: str, data: bytes, caption: str | None = "tok, a thing") -> dict[str, Any]:
    """Return an image as upload-dataset takes it."""
    content = base64.b64encode(data).decode()
    return {"filename": filename, "content": content, **({} if caption is None else {"caption": caption})}


@pytest.fixture
def tools(tmp_path: Path) -> Toolbox:
    return toolbox_in(tmp_path)


@pytest.fixture
async def folder(tools: Toolbox, tmp_path: Path) -> Path:
    images = [sent(f"{seed}.png", drawn(seed)) for seed in range(6)]
    await call(tools, "upload-dataset", dataset_name="things", images=images)
    return tmp_path / "datasets" / "things"


async def check(tools: Toolbox, **given: Any) -> dict[str, Any]:
    return await call(tools, "check-dataset", dataset_name="things", **given)


def found(report: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(finding for finding in report["findings"] if finding["kind"] == kind)


async def test_a_good_dataset_is_ready(tools: Toolbox, folder: Path) -> None:
    report = await check(tools, trigger_word="tok", resolution=[256, 512])
    assert (report["verdict"], report["findings"]) == ("ready", [])
    assert (report["images"], report["readable"], report["captions"]) == (6, 6, 6)
    assert report["path"] == str(folder)
    assert [(each["resolution"], each["width"], each["images"]) for each in report["buckets"]] == [
        (256, 256, 6),
        (512, 512, 6),
    ]
    assert report["steps_per_epoch"] == 12


async def test_files_that_do_not_decode_are_named_and_the_cure_works(tools: Toolbox, folder: Path) -> None:
    whole = drawn(9, form="JPEG")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "page.png").write_bytes(b"<!DOCTYPE html>")
    (folder / "empty.webp").write_bytes(b"")
    report = await check(tools)
    assert report["verdict"] == "not_usable"
    finding = found(report, "unreadable")
    assert finding["severity"] == "error"
    assert finding["filenames"] == ["cut.jpg", "empty.webp", "page.png"]
    assert "`page.png`: it is a web page" in finding["message"]
    action = finding["actions"][0]
    await tools.call(action["tool"], action["arguments"], Call())
    assert (await check(tools))["verdict"] == "ready"


async def test_copies_are_found_byte_for_byte_and_by_eye(tools: Toolbox, folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    with Image.open(folder / "1.png") as original:
        original.resize((900, 900)).save(folder / "larger.jpg", quality=60)
    report = await check(tools)
    assert report["verdict"] == "usable"
    same, near = found(report, "duplicate"), found(report, "near_duplicate")
    assert same["filenames"] == ["0.png", "copy.png"]
    # The one with a caption stays.
    assert same["actions"][0]["arguments"]["filenames"] == ["copy.png"]
    assert near["filenames"] == ["1.png", "larger.jpg"]
    assert near["actions"][0]["arguments"]["filenames"] == ["1.png"]
    assert "larger.jpg" in near["actions"][0]["why"]


async def test_captions_are_looked_through(tools: Toolbox, folder: Path) -> None:
    (folder / "0.txt").unlink()
    (folder / "1.txt").write_text(" \n")
    (folder / "2.txt").write_text("a thing without")
    (folder / "3.txt").write_text("[trigger], a thing")
    (folder / "gone.txt").write_text("tok of an image that is gone")
    report = await check(tools, trigger_word="tok")
    assert report["verdict"] == "usable"
    assert report["captions"] == 4
    assert found(report, "missing_caption")["filenames"] == ["0.png"]
    assert found(report, "missing_caption")["actions"][0] == {
        "tool": "set-caption",
        "arguments": {"dataset_name": "things", "filename": "0.png"},
        "to_fill": ["caption"],
        "why": "Say what the image shows.",
    }
    assert found(report, "empty_caption")["filenames"] == ["1.png"]
    assert found(report, "trigger_word_missing")["filenames"] == ["2.png"]
    assert found(report, "trigger_word_missing")["actions"][0]["arguments"]["trigger_word"] == "tok"
    assert found(report, "caption_without_image")["severity"] == "note"
    (folder / "4.txt").write_bytes("käse".encode("latin-1"))
    report = await check(tools)
    assert report["verdict"] == "not_usable"
    assert found(report, "caption_not_utf8")["filenames"] == ["4.png"]


async def test_turned_small_long_and_unseen_files_are_told(tools: Toolbox, folder: Path) -> None:
    (folder / "turned.jpg").write_bytes(image_bytes(640, 480, form="JPEG", orientation=6))
    (folder / "small.png").write_bytes(drawn(20, 100, 90))
    (folder / "long.png").write_bytes(drawn(21, 8000, 40))
    (folder / "moving.gif").write_bytes(b"GIF89a")
    report = await check(tools, architecture="flux")
    assert found(report, "exif_rotated")["filenames"] == ["turned.jpg"]
    assert found(report, "exif_rotated")["severity"] == "note"
    assert found(report, "too_small")["filenames"] == ["small.png"]
    assert "long.png" in found(report, "much_cropped")["filenames"]
    assert found(report, "not_seen")["filenames"] == ["moving.gif"]
    sizes = {name: (each["width"], each["height"]) for each in report["buckets"] for name in each["filenames"]}
    assert sizes["turned.jpg"] == (448, 576)
    assert sizes["small.png"] == (96, 96)


async def test_batches_do_not_mix_buckets(tools: Toolbox, folder: Path) -> None:
    for seed in range(3):
        (folder / f"wide{seed}.png").write_bytes(drawn(30 + seed, 900, 450))
    report = await check(tools, batch_size=4)
    assert sorted(each["images"] for each in report["buckets"]) == [3, 6]
    assert report["steps_per_epoch"] == 3


async def test_few_images_and_none(tools: Toolbox, folder: Path) -> None:
    for name in ("2", "3", "4", "5"):
        (folder / f"{name}.png").unlink()
        (folder / f"{name}.txt").unlink()
    report = await check(tools)
    assert found(report, "few_images")["message"].startswith("2 readable images")
    for name in ("0", "1"):
        (folder / f"{name}.png").unlink()
    report = await check(tools)
    assert report["verdict"] == "not_usable"
    assert found(report, "no_images")["actions"][0]["tool"] == "upload-dataset"
    assert report["buckets"] == []


async def test_nothing_is_changed_and_the_trainers_caches_do_not_count(tools: Toolbox, folder: Path) -> None:
    caches = folder / "_latent_cache"
    caches.mkdir()
    (caches / "a.safetensors").write_bytes(b"cache")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert (await check(tools))["verdict"] == "ready"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert "__version__" in json.loads((folder / ".aitk_size.json").read_text())


async def test_wrong_arguments_are_answered_with_the_closest(tools: Toolbox, folder: Path) -> None:
    with pytest.raises(NotFound):
        await call(tools, "check-dataset", dataset_name="thing")
    with pytest.raises(InvalidArguments, match="fluxx") as caught:
        await check(tools, architecture="fluxx")
    assert caught.value.details["closest_matches"][0] == "flux"
    with pytest.raises(InvalidArguments, match="resolution"):
        await check(tools, resolution=[])
