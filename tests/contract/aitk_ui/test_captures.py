"""The stand-in for AI Toolkit's server answers as the real one did: its captured exchanges, replayed in their order."""

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from anyio import to_thread
from PIL import Image

from tests.contract.aitk_ui.replay import Replay
from tests.fakes.aitk_ui import FakeAitkUi

CAPTURES = sorted((Path(__file__).parent / "captures").glob("*.json"))
WITH_TOKEN = [path for path in CAPTURES if path.name.startswith("4")]


async def before_205(replay: Replay) -> None:
    await replay.start("t_stop", "t_badmodel", "t_badds", "t_mismatch")


async def the_queue_is_empty(replay: Replay) -> None:
    await replay.comes("the end of the queue", {"id": 1, "gpu_ids": "0", "is_running": False})


async def before_215(replay: Replay) -> None:
    await replay.trains("t_stop")


async def before_501(replay: Replay) -> None:
    await replay.start("tiny_ui")
    replay.fake.tables.queue_of("0").is_running = True


async def before_503(replay: Replay) -> None:
    await replay.start("t_kill")
    replay.fake.tables.queue_of("0").is_running = True
    os.kill(await replay.trains("t_kill"), signal.SIGKILL)


async def before_504(replay: Replay) -> None:
    await replay.start("t_kill")
    replay.fake.tables.queue_of("0").is_running = True
    # Only a worker that does not know of the process leaves the row as it is.
    await to_thread.run_sync(replay.fake.worker.lose, await replay.trains("t_kill"))


BEFORE: dict[str, Callable[[Replay], Awaitable[None]]] = {
    "205": before_205,
    "213": the_queue_is_empty,
    "215": before_215,
    "305": the_queue_is_empty,
    "501": before_501,
    "503": before_503,
    "504": before_504,
}


# It trains a dozen times, and follows states that a busy machine may pass too fast to be seen.
@pytest.mark.long
async def test_the_captured_exchanges_come_out_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "my_test_set_"
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "teal").save(folder / name)
    fake = FakeAitkUi(tmp_path)
    with fake.serving() as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            replay = Replay(fake, client)
            for path in CAPTURES:
                if path in WITH_TOKEN:
                    continue
                if path.name[:3] in BEFORE:
                    await BEFORE[path.name[:3]](replay)
                await replay.play(path)


async def test_the_captured_exchanges_with_a_token_come_out_the_same(tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path, token="s3cret")
    with fake.serving() as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for path in WITH_TOKEN:
                await Replay(fake, client).play(path)
