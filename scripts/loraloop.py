"""LoRA Loop's command line: `loraloop demo`, `loraloop serve`, `loraloop transfer`."""

try:
    import argparse
    import asyncio
    import contextlib
    import json
    import os
    import re
    import signal
    import sys
    import tempfile
    import time
    from base64 import b64encode
    from collections.abc import Sequence
    from contextlib import AsyncExitStack
    from dataclasses import dataclass
    from importlib.util import find_spec
    from pathlib import Path
    from typing import Any

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    if find_spec("mcp_toolserver") is None:
        from checkout import prepare

        prepare()

    import httpx
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mcp_toolserver import __version__
    from mcp_toolserver.child_servers import running_server
    from mcp_toolserver.client import ToolClient
    from mcp_toolserver.errors import ToolError
    from mcp_toolserver.terminal import prepare_streams
    from transfers.command_line import main as run_transfer
    from transfers.options import TransferOptions
    from transfers.transfer import transfer
except KeyboardInterrupt:
    # It came while the modules were loaded.
    raise SystemExit(130) from None

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PICTURE_PX = 512
_SHEET_COLOUR = "#16181d"
STRENGTHS = {"without": 0.0, "with": 1.0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with 0 on success, 1 on a failure that was explained, 2 on wrong usage."""
    prepare_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["transfer"]:
        raise SystemExit(run_transfer(given[1:], "loraloop transfer"))
    options = _parser().parse_args(given)
    try:
        raise SystemExit(asyncio.run(options.run(options)))
    except ToolError as error:
        raise SystemExit(f"loraloop: {error.as_text()}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="loraloop", description="From images to a LoRA to a picture.")
    parser.add_argument("--version", action="version", version=f"loraloop {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run the whole loop on the embedded engines")
    demo.add_argument("--images", type=Path, help="folder of your own images (and captions as .txt beside them)")
    demo.add_argument("--trigger", default="pixel_cat", help="word that calls the subject (pixel_cat)")
    demo.add_argument(
        "--prompt", help="prompt of the pictures (the trigger word; with the sample images, a cat on the grass)"
    )
    demo.add_argument("--steps", type=int, default=500, help="training steps (500)")
    demo.add_argument("--seed", type=int, default=4, help="seed of both pictures (4)")
    demo.add_argument("--out", type=Path, help="folder for the pictures and the LoRA (a new temporary one)")
    demo.add_argument("--json", action="store_true", help="end with one line of JSON")
    demo.set_defaults(run=run_demo)

    serve = commands.add_parser("serve", help="run both servers until interrupted")
    serve.add_argument("--embedded", action="store_true", help="use the embedded engines, whatever is configured")
    serve.add_argument("--data-dir", type=Path, help="folder for everything that the servers keep (~/.loraloop)")
    serve.add_argument("--comfy-port", type=int, default=8189, help="port of comfy_mcp (8189)")
    serve.add_argument("--aitk-port", type=int, default=8190, help="port of aitk_mcp (8190)")
    serve.set_defaults(run=run_serve)

    commands.add_parser("transfer", help="move a LoRA from aitk_mcp to comfy_mcp (`loraloop transfer --help`)")
    return parser


async def run_serve(options: argparse.Namespace) -> int:
    """Run both servers until a signal comes or one of them ends."""
    comfy = ["--port", str(options.comfy_port)]
    aitk = ["--port", str(options.aitk_port)]
    if options.data_dir:
        comfy += ["--data-dir", str(options.data_dir / "comfy")]
        aitk += ["--data-dir", str(options.data_dir / "aitk")]
    if options.embedded:
        comfy += ["--backend", "embedded"]
        aitk += ["--trainer", "embedded"]
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if "AITK_MCP_TOKEN" in os.environ:
        os.environ.setdefault("COMFY_MCP_AITK_TOKEN", os.environ["AITK_MCP_TOKEN"])
    async with AsyncExitStack() as stack:
        trainer = await stack.enter_async_context(running_server("aitk_mcp", aitk))
        if "COMFY_MCP_AITK_URL" not in os.environ:
            comfy += ["--aitk-url", trainer.url]
        painter = await stack.enter_async_context(running_server("comfy_mcp", comfy))
        for server in (trainer, painter):
            print(f"{server.name:<10} {server.url}/mcp   (REST: {server.url}/mcp/tool)")
        print("Ctrl-C stops both.", flush=True)
        waits = {
            asyncio.create_task(stop.wait()): None,
            asyncio.create_task(trainer.process.wait()): trainer,
            asyncio.create_task(painter.process.wait()): painter,
        }
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        dead = [server for task in done if (server := waits[task]) is not None]
        for server in dead:
            print(f"loraloop: {server.name} ended by itself (exit {server.process.returncode}).", file=sys.stderr)
    return 1 if dead else 0


@dataclass(frozen=True)
class Sample:
    """One image of the dataset, with its caption if it has one."""

    path: Path
    caption: str | None


def read_samples(folder: Path) -> list[Sample]:
    """Return the images of a folder with the captions beside them; raises SystemExit when there are none."""
    if not folder.is_dir():
        raise SystemExit(f"loraloop: {folder} is no folder.")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise SystemExit(f"loraloop: {folder} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    return [
        Sample(path, text.read_text("utf-8").strip() if (text := path.with_suffix(".txt")).is_file() else None)
        for path in images
    ]


class Demo:
    """The loop from images to a picture, as an agent would go it: through the tools of both servers alone."""

    def __init__(self, options: argparse.Namespace, out: Path, data: Path, console: Console) -> None:
        from tinyflux import sample_dataset_path

        self._options = options
        self._out = out
        self._data = data
        self._console = console
        self._folder: Path = options.images or sample_dataset_path()
        self._name = re.sub(r"[^a-z0-9]+", "_", options.trigger.lower()).strip("_") + "_lora"
        self._samples = read_samples(self._folder)
        sample_prompt = options.trigger if options.images else f"{options.trigger}, a cat sitting on the grass"
        self._prompt: str = options.prompt or sample_prompt

    async def run(self, aitk_url: str, comfy_url: str) -> dict[str, Any]:
        """Go through the loop; returns the report of `--json` without its `seconds`."""
        async with ToolClient(aitk_url) as aitk, ToolClient(comfy_url) as comfy:
            samples = self._samples
            dataset = await self._upload(aitk, samples)
            training = await self._train(aitk, dataset["path"])
            moved = await transfer(
                TransferOptions(
                    aitk_url=aitk_url,
                    comfy_url=comfy_url,
                    model=f"{self._name}/{self._name}.safetensors",
                    state_dir=self._data / "state",
                )
            )
            self._say("transfer", f"{moved.size_bytes:,} bytes in {moved.seconds:.2f} s, sha256 {moved.sha256[:12]}…")
            info = await comfy.call("get-lora-info", {"lora_name": moved.name})
            lora = {"name": moved.name, "architecture": info["architecture"], "rank": info["network"]["rank"]}
            lora["trigger_words"] = info["trigger_words"]
            words = ", ".join(info["trigger_words"])
            self._say("inspect", f"{info['architecture']}, rank {info['network']['rank']}, trigger words: {words}")
            pictures = {side: await self._paint(comfy, side, moved.name) for side in STRENGTHS}
            sheet = await asyncio.to_thread(contact_sheet, samples, pictures, self._out / "contact_sheet.png")
            effect = await asyncio.to_thread(measure_effect, samples, pictures)
            self._say(
                "effect",
                f"colours are {effect['distance_without']:.2f} from the dataset without, "
                f"{effect['distance_with']:.2f} with the LoRA",
            )
        return {
            "dataset": {"images": dataset["images_saved"], "path": dataset["path"]},
            "training": training,
            "transfer": {
                "method": moved.method,
                "size_bytes": moved.size_bytes,
                "sha256": moved.sha256,
                "checksum_verified": moved.checksum_verified,
                "seconds": round(moved.seconds, 3),
            },
            "lora": lora,
            "images": {side: str(path) for side, path in pictures.items()} | {"contact_sheet": str(sheet)},
            "effect": effect,
        }

    async def _upload(self, aitk: ToolClient, samples: list[Sample]) -> dict[str, Any]:
        images = [
            {
                "filename": sample.path.name,
                "content": b64encode(await asyncio.to_thread(sample.path.read_bytes)).decode(),
                "caption": sample.caption or self._options.trigger,
            }
            for sample in samples
        ]
        dataset = await aitk.call(
            "upload-dataset",
            {"dataset_name": self._options.trigger, "images": images, "trigger_word": self._options.trigger},
        )
        self._say("dataset", f"{dataset['images_saved']} images, {dataset['captions_saved']} captions")
        for problem in dataset["problems"]:
            self._say("", f"{problem['filename']}: {problem['problem']} {problem['cure']}")
        return dataset

    async def _train(self, aitk: ToolClient, dataset_path: str) -> dict[str, Any]:
        steps: int = self._options.steps
        await aitk.call(
            "create-training-config",
            {
                "name": self._name,
                "model_name": "tinyflux",
                "dataset_path": dataset_path,
                "trigger_word": self._options.trigger,
                "steps": steps,
                "rank": 16,
                "alpha": 16,
                "batch_size": 2,
                "learning_rate": 1e-4,
                "test_prompts": [self._prompt],
            },
        )
        started = time.monotonic()
        job = await aitk.call("start-training", {"config_name": self._name})
        columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.fields[words]}"))
        bars = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
        with bars if self._console.is_terminal else contextlib.nullcontext():
            bar, told = bars.add_task("training", total=steps, words=job["info"]), 0
            try:
                while job["status"] in ("queued", "running"):
                    job = await aitk.call("wait-training", {"job_id": job["job_id"], "wait_s": 0.5})
                    loss = "" if job["loss"] is None else f"loss {job['loss']:.3f}"
                    words = f"{job['step']}/{steps} {loss}"
                    bars.update(bar, completed=job["step"], words=words)
                    if not self._console.is_terminal and job["step"] - told >= steps / 5:
                        told = job["step"]
                        self._say("training", words)
            except asyncio.CancelledError:
                # A training outlives its server by design; the demo is over, and so is its training.
                await asyncio.shield(aitk.call("stop-training", {"job_id": job["job_id"], "save": False}))
                raise
        seconds = time.monotonic() - started
        if job["status"] != "completed":
            raise SystemExit(f"loraloop: the training {job['status']}: {job['error']} {job['hint'] or ''}")
        curve = await aitk.call("get-training-loss", {"job_id": job["job_id"]})
        losses = [point["loss"] for point in curve["points"]]
        edge = max(1, min(50, len(losses) // 4))
        first, last = sum(losses[:edge]) / edge, sum(losses[-edge:]) / edge
        self._say("training", f"{job['step']} steps in {seconds:.1f} s, loss {first:.3f} to {last:.3f}")
        self._say("", curve["plot"])
        return {
            "job_id": job["job_id"],
            "status": job["status"],
            "steps": job["step"],
            "seconds": round(seconds, 2),
            "loss_first": round(first, 5),
            "loss_last": round(last, 5),
        }

    async def _paint(self, comfy: ToolClient, side: str, lora_name: str) -> Path:
        picture = await comfy.call(
            "generate-image",
            {
                "prompt": self._prompt,
                "loras": [{"name": lora_name, "strength": STRENGTHS[side]}],
                "width": PICTURE_PX,
                "height": PICTURE_PX,
                "seed": self._options.seed,
                "steps": 20,
                "wait_s": 60,
            },
        )
        if picture["status"] != "completed":
            raise SystemExit(f"loraloop: the picture is {picture['status']}: {picture['message']}")
        path = self._out / f"{side}_lora.png"
        async with httpx.AsyncClient() as client:
            answer = await client.get(picture["images"][0]["url"])
            answer.raise_for_status()
        await asyncio.to_thread(path.write_bytes, answer.content)
        self._say("picture", f"{path} (engine {picture['engine']}, strength {STRENGTHS[side]:g})")
        return path

    def _say(self, what: str, words: str) -> None:
        self._console.print(f"[bold]{what:>10}[/bold]  {words}", highlight=False, soft_wrap=True)


async def run_demo(options: argparse.Namespace) -> int:
    """Run the whole loop in a folder of its own, and say where the pictures are."""
    started = time.monotonic()
    console = Console(stderr=options.json)
    out = output_folder(options.out)
    data = Path(tempfile.mkdtemp(prefix="data-", dir=out))
    demo = Demo(options, out, data, console)
    console.print("LoRA Loop on the embedded engines: a miniature FLUX of 32 x 32 pixels, scaled up.", soft_wrap=True)
    with (data / "servers.log").open("wb") as log:
        aitk = ["--port", "0", "--data-dir", f"{data}/aitk", "--trainer", "embedded"]
        comfy = ["--port", "0", "--data-dir", f"{data}/comfy", "--backend", "embedded"]
        async with AsyncExitStack() as stack:
            trainer = await stack.enter_async_context(running_server("aitk_mcp", aitk, log.fileno()))
            comfy += ["--aitk-url", trainer.url]
            painter = await stack.enter_async_context(running_server("comfy_mcp", comfy, log.fileno()))
            report = await demo.run(trainer.url, painter.url)
    seconds = time.monotonic() - started
    console.print(
        f"\nDone in {seconds:.0f} s; the LoRA, the dataset and the servers' log are in {data}.\n"
        f"Look at {report['images']['contact_sheet']}",
        soft_wrap=True,
    )
    if options.json:
        print(json.dumps({"seconds": round(seconds, 2), **report}), flush=True)
    return 0


def output_folder(asked: Path | None) -> Path:
    """Return the folder for the pictures, made where it is not there yet."""
    folder = asked.absolute() if asked else Path(tempfile.mkdtemp(prefix="loraloop-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def measure_effect(samples: list[Sample], pictures: dict[str, Path]) -> dict[str, float]:
    """Return the palette distance (0 to 1) of each picture to the dataset."""
    import numpy as np
    from PIL import Image

    from tinyflux import palette_distance

    def small(path: Path) -> Any:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX), dtype=np.uint8)

    dataset = np.stack([small(sample.path) for sample in samples])
    return {
        f"distance_{side}": round(palette_distance(small(path)[None], dataset), 4) for side, path in pictures.items()
    }


def contact_sheet(samples: list[Sample], pictures: dict[str, Path], target: Path) -> Path:
    """Draw the dataset, the picture without and the picture with the LoRA on one sheet (PNG)."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    cell, gap, head, shown = 120, 8, 34, samples[:12]
    rows = -(-len(shown) // 3)
    side_px = max(rows, 3) * (cell + gap) - gap
    width = gap + 3 * (cell + gap) + 2 * (side_px + 2 * gap)
    sheet = Image.new("RGB", (width, head + side_px + gap), _SHEET_COLOUR)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)

    def paste(path: Path, left: int, top: int, size_px: int) -> None:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        method = Image.Resampling.LANCZOS if max(image.size) > size_px else Image.Resampling.NEAREST
        sheet.paste(ImageOps.pad(image, (size_px, size_px), method, color=_SHEET_COLOUR), (left, top))

    draw.text((gap, 7), f"dataset ({len(samples)})", "#e6e8ee", font)
    for index, sample in enumerate(shown):
        paste(sample.path, gap + index % 3 * (cell + gap), head + index // 3 * (cell + gap), cell)
    for column, side in enumerate(pictures):
        left = gap + 3 * (cell + gap) + gap + column * (side_px + 2 * gap)
        draw.text((left, 7), f"{side} LoRA (strength {STRENGTHS[side]:g})", "#e6e8ee", font)
        paste(pictures[side], left, head, side_px)
    sheet.save(target)
    return target


if __name__ == "__main__":
    main()
