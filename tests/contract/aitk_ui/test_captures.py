"""The stand-in for AI Toolkit's server answers as the real one did: its captured exchanges, replayed in their order."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import httpx

from tests.contract.aitk_ui.replay import Replay
from tests.fakes.aitk_ui import FakeAitkUi
from tests.fakes.aitk_ui_worker import SteppedWorker

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
    await replay.trains("t_kill")
    replay.worker.kill(next(job for job in replay.fake.tables.jobs.values() if job.name == "t_kill"))


async def before_504(replay: Replay) -> None:
    await replay.start("t_kill")
    replay.fake.tables.queue_of("0").is_running = True
    # Only a worker that does not know of the process leaves the row as it is.
    replay.worker.lose(await replay.trains("t_kill"))


async def before_025(replay: Replay) -> None:
    # AI Toolkit makes small pictures of what its pages show.
    small = anyio.Path(replay.fake.root / "datasets" / "my_test_set_" / ".thumbs" / "a.png.jpg")
    await small.parent.mkdir()
    await small.write_bytes(bytes(37423))


async def before_604(replay: Replay) -> None:
    for name in ("a", "b"):
        await anyio.Path(replay.fake.root / "sandbox" / name).mkdir(parents=True)


async def before_606(replay: Replay) -> None:
    # What the empty name did.
    assert not await anyio.Path(replay.fake.root / "sandbox").exists()


BEFORE: dict[str, Callable[[Replay], Awaitable[None]]] = {
    "025": before_025,
    "205": before_205,
    "213": the_queue_is_empty,
    "215": before_215,
    "305": the_queue_is_empty,
    "501": before_501,
    "503": before_503,
    "504": before_504,
    "604": before_604,
    "606": before_606,
}


async def test_the_captured_exchanges_come_out_the_same(tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path, worker=SteppedWorker)
    assert isinstance(fake.worker, SteppedWorker)
    with fake.serving() as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            replay = Replay(fake, fake.worker, client)
            for path in CAPTURES:
                if path in WITH_TOKEN:
                    continue
                if path.name[:3] in BEFORE:
                    await BEFORE[path.name[:3]](replay)
                await replay.play(path)


async def test_the_captured_exchanges_with_a_token_come_out_the_same(tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path, token="s3cret", worker=SteppedWorker)
    assert isinstance(fake.worker, SteppedWorker)
    folder = tmp_path / "datasets" / "my_test_set_"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(bytes(18564))
    with fake.serving() as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for path in WITH_TOKEN:
                await Replay(fake, fake.worker, client).play(path)
