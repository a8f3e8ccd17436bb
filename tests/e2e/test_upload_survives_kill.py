"""A server that is killed at any moment of an upload loses no byte that it acknowledged, and shows no partial file.

By each way in, files are sent one after the other, each over the one before it, while a timer kills the server. What is
published is then one of the two that may be there, and the upload goes on where it was.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import Popen

import httpx
import pytest

from tests.conftest import server_process
from tests.e2e.resuming_senders import SENDERS, Sender

LONGEST_LIFE_S = 0.3


@asynccontextmanager
async def running(sender: Sender) -> AsyncGenerator[tuple[Popen[str], httpx.AsyncClient]]:
    """Run the server that takes such uploads; yields its process and a caller, when it has answered once."""
    with server_process(*sender.server(), "--data-dir", str(sender.folder / "data")) as (process, url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            assert (await http.get("/health")).status_code == 200
            yield process, http


@pytest.mark.parametrize("way", SENDERS)
@pytest.mark.parametrize("deaths", [3, pytest.param(200, marks=pytest.mark.long)])
async def test_an_upload_goes_on_after_every_kill(tmp_path: Path, way: str, deaths: int) -> None:
    chance = random.Random(f"{way} {deaths}")
    sender = SENDERS[way](tmp_path, chance)
    for _ in range(deaths):
        async with running(sender) as (process, http):
            await asyncio.to_thread(sender.require_whole)
            asyncio.get_running_loop().call_later(chance.uniform(0, LONGEST_LIFE_S), process.kill)
            with suppress(httpx.TransportError):
                while True:
                    await sender.send_one(http)
        if not sender.heals_at_start:
            await asyncio.to_thread(sender.require_whole)
    async with running(sender) as (_, http):
        for _ in range(2):
            await sender.send_one(http)
    assert await asyncio.to_thread(sender.published) == sender.files[(sender.sent - 1) % 2]
