"""Uploads by tus and in one call: how fast a LoRA is taken, checked by its digest, made durable and published."""

from pathlib import Path
from uuid import uuid4

from anyio import to_thread

from benchmarks.disk import CURL, copy_to_disk, curl
from benchmarks.measuring import KIB, MIB, Bench, Row, Work, in_thread, in_turn
from benchmarks.ways import TUS_BODY, begin_tus, put, send_by_tus, send_whole, write_lora

PATCH_SIZES = (("256k", 256 * KIB), ("1m", MIB), ("4m", 4 * MIB))
# Larger bodies than 8 MiB are refused where nobody has set more.
WHOLE_BYTES = 4 * MIB
WHOLE_TIMES = 8


async def rows(bench: Bench) -> list[Row]:
    """Measure an upload in one PATCH and in PATCHes of three sizes, each beside copying the same file on the disk.

    Both sides end with bytes that are on the disk and whose sha256 was computed. By `curl -T` the file also goes to us
    and to a bare route, which does neither.
    """
    url = await bench.comfy_url()
    source = bench.folder / "sent.safetensors"
    sha256 = await to_thread.run_sync(write_lora, source, bench.size_bytes)
    size_bytes = source.stat().st_size
    published = bench.data_dir("comfy_mcp") / "comfyui" / "models" / "loras"

    def by_tus(patch_bytes: int) -> None:
        filename = f"{uuid4()}.safetensors"
        send_by_tus(url, source, filename, sha256, patch_bytes)
        # Also the proof that it was published under its name.
        (published / filename).unlink()

    names = ("tus_vs_disk", *(f"tus_{label}" for label, _ in PATCH_SIZES))
    sizes = (size_bytes, *(size for _, size in PATCH_SIZES))
    works = [in_thread(by_tus, size) for size in sizes]
    copying = in_thread(copy_to_disk, source, bench.folder / "copied.safetensors")
    by_curl = _by_curl(await bench.bare_url(), bench.folder, url, source, sha256, published) if CURL else ()
    *taken, copied_s = await in_turn(bench.runs, *works, *by_curl, copying)
    megabytes = size_bytes / 1e6
    measured = [
        Row(name, megabytes / s, "MB/s", "cp, sync, sha256sum", megabytes / copied_s, copied_s / s, goal)
        for name, s, goal in zip(names, taken, (0.7, None, None, None), strict=False)
    ]
    if by_curl:
        ours_s, bare_s = taken[-2:]
        label = "curl -T to a bare route, no digest, no fsync"
        measured.append(
            Row("tus_vs_curl", megabytes / ours_s, "MB/s", label, megabytes / bare_s, bare_s / ours_s, None)
        )
    else:
        bench.leave_out("tus_vs_curl", "there is no curl")
    return [*measured, await _whole(bench, published)]


def _by_curl(bare_url: str, bare_folder: Path, url: str, source: Path, sha256: str, published: Path) -> list[Work]:
    def ours() -> None:
        filename = f"{uuid4()}.safetensors"
        told = {"filename": filename, "sha256": sha256}
        location = begin_tus(f"{url}/uploads", source.stat().st_size, told)
        headers = [f"{name}: {text}" for name, text in {**TUS_BODY, "Upload-Offset": "0"}.items()]
        curl(source, location, "-X", "PATCH", *(part for header in headers for part in ("-H", header)))
        (published / filename).unlink()

    def bare() -> None:
        curl(source, f"{bare_url}/raw/curled")
        (bare_folder / "curled").unlink()

    return [in_thread(ours), in_thread(bare)]


async def _whole(bench: Bench, published: Path) -> Row:
    """Measure `upload-lora`, which has all bytes in one call, beside a PUT of as many to a bare route."""
    url, bare_url = await bench.comfy_url(), await bench.bare_url()
    source = bench.folder / "whole.safetensors"
    sha256 = await to_thread.run_sync(write_lora, source, min(bench.size_bytes, WHOLE_BYTES))

    def ours() -> None:
        for _ in range(WHOLE_TIMES):
            filename = f"{uuid4()}.safetensors"
            send_whole(url, source, filename, sha256)
            (published / filename).unlink()

    def bare() -> None:
        for _ in range(WHOLE_TIMES):
            put(f"{bare_url}/raw/whole", source)
            (bench.folder / "whole").unlink()

    ours_s, bare_s = await in_turn(bench.runs, in_thread(ours), in_thread(bare))
    megabytes = WHOLE_TIMES * source.stat().st_size / 1e6
    label = "PUT to a bare route, no digest, no fsync"
    return Row("upload_whole", megabytes / ours_s, "MB/s", label, megabytes / bare_s, bare_s / ours_s, None)
