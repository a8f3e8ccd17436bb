"""A caller of the training tools of an aitk_mcp on a real socket, which trains on the embedded engine."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp

from aitk_mcp.app import create_app
from tests.servers.aitk import image, settings_in

ENDLESS = 100_000


class Caller:
    """Call the server's tools by REST."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = (await self.client.post("/mcp/tool", json={"tool": tool, "arguments": arguments})).json()
        assert answer["success"], answer
        return answer["result"]

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = (await self.client.post("/mcp/tool", json={"tool": tool, "arguments": arguments})).json()
        assert not answer["success"], answer
        return answer["error"]

    async def config(self, name: str, **arguments: Any) -> str:
        given = {"steps": 12, "rank": 4, "alpha": 4, "trigger_word": "pixcat", "test_prompts": ["pixcat in snow"]}
        await self("create-training-config", name=name, model_name="tinyflux", dataset_path="cats", **given | arguments)
        return name


@asynccontextmanager
async def training_server(folder: Path, serve: Callable[[ASGIApp], str]) -> AsyncGenerator[Caller]:
    """Serve with a dataset, and end the trainings that are left behind."""
    async with httpx.AsyncClient(base_url=serve(create_app(settings_in(folder))), timeout=120) as client:
        caller = Caller(client)
        images = [image(f"{index}.png", "pixcat, a cat", colour=colour) for index, colour in enumerate(("teal", "red"))]
        await caller("upload-dataset", dataset_name="cats", images=images)
        yield caller
        for status in ("queued", "running"):
            for job in (await caller("list-training-jobs", status=status))["jobs"]:
                await caller("stop-training", job_id=job["job_id"], save=False)
