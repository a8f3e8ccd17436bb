"""Datasets: how long a large zip takes to become one."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from anyio import to_thread
from PIL import Image

from aitk_mcp.datasets.datasets import Datasets
from aitk_mcp.datasets.imports import NewDataset, import_path
from benchmarks.measuring import Bench, Row

IMAGES = 1000
DISTINCT = 8
# Each kind at the size and quality at which a noisy picture takes about 100 KB.
KINDS = (("JPEG", ".jpg", 512, 90), ("PNG", ".png", 190, 90), ("WEBP", ".webp", 512, 88))


async def rows(bench: Bench) -> list[Row]:
    """Measure the import of 1,000 images of 100 KB with captions, beside unzipping them and reading their headers."""
    folder = bench.folder / "zip_import"
    await to_thread.run_sync(folder.mkdir)
    source = await to_thread.run_sync(_pack, folder / "images.zip", bench.many(IMAGES))
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(bench.runs + 1):
        ours.append(await _timed(partial(_import, folder / "datasets", source), folder / "datasets"))
        plain.append(await _timed(partial(_unpack, source, folder / "plain"), folder / "plain"))
    await to_thread.run_sync(shutil.rmtree, folder)
    ours_s, plain_s = statistics.median(ours[1:]), statistics.median(plain[1:])
    return [Row("zip_import", ours_s, "s", "unzip, then reading each header", plain_s, plain_s / ours_s, 1 / 2)]


async def _timed(work: Callable[[], Awaitable[None]], leftover: Path) -> float:
    started = time.perf_counter()
    await work()
    taken = time.perf_counter() - started
    await to_thread.run_sync(shutil.rmtree, leftover)
    return taken


async def _import(root: Path, source: Path) -> None:
    await import_path(Datasets(root), [source.parent], str(source), NewDataset("bench"))


async def _unpack(source: Path, target: Path) -> None:
    await to_thread.run_sync(_unzip_and_look, source, target)


def _unzip_and_look(source: Path, target: Path) -> None:
    unzip = shutil.which("unzip")
    plain = [unzip, "-q", str(source), "-d", str(target)] if unzip else None
    subprocess.run(plain or [sys.executable, "-m", "zipfile", "-e", str(source), str(target)], check=True)
    for path in target.iterdir():
        if path.suffix != ".txt":
            with Image.open(path) as image:
                assert image.width > 1


def _pack(target: Path, images: int) -> Path:
    """Write the zip; a few pictures stand in it again and again, since drawing a thousand would take a minute."""
    contents = [[_drawn(seed, *kind) for seed in range(DISTINCT)] for kind in KINDS]
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for index in range(images):
            kind = index % len(KINDS)
            archive.writestr(f"{index:04}{KINDS[kind][1]}", contents[kind][index // len(KINDS) % DISTINCT])
            archive.writestr(f"{index:04}.txt", "a picture of noise")
    return target


def _drawn(seed: int, form: str, suffix: str, side: int, quality: int) -> bytes:
    random = np.random.RandomState(seed)
    shapes = Image.fromarray(random.randint(0, 255, (64, 64, 3), np.uint8)).resize((side, side))
    noisy = np.asarray(shapes, np.int16) + random.randint(-12, 12, (side, side, 3))
    file = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, form, quality=quality)
    return file.getvalue()
