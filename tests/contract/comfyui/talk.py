"""Talk to a ComfyUI as its clients do: HTTP, and one WebSocket per client id."""

import asyncio
import copy
import json
import struct
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

CAPTURES = Path(__file__).parent / "captures"
CAPTURED_VERSION = "0.30.0"
END_WAIT_S = 120.0

Graph = dict[str, dict[str, Any]]


def read_capture(name: str) -> Any:
    """Return what a capture file holds."""
    return json.loads((CAPTURES / name).read_text())


class Differences:
    """What servers older than the captures do otherwise; a version is that in which something was first seen."""

    _table: Mapping[str, Any] = read_capture("differences.json")

    def __init__(self, version: str) -> None:
        self._version = _numbers(version)

    def has(self, what: str) -> bool:
        """Tell whether a server of this version does it."""
        return self._version >= _numbers(self._table["seen_since"][what])

    def expected(self, case: str, newest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a server of this version answers in a captured case."""
        for row in self._table["older_answers"]:
            if row["case"] == case and self._version < _numbers(row["before"]):
                return row["expect"]
        return newest


@dataclass(frozen=True, slots=True)
class Names:
    """One server: its version, and the files of it that graphs may name."""

    checkpoint: str
    lora: str
    version: str = CAPTURED_VERSION


@dataclass(frozen=True, slots=True)
class Preview:
    """One binary frame: its type, its metadata (type 4), and the picture's bytes."""

    kind: int
    metadata: dict[str, Any]
    picture: bytes


@dataclass(slots=True)
class Ended:
    """All that a socket heard of one prompt, and what the history says of it."""

    prompt_id: str
    events: list[tuple[str, dict[str, Any]]]
    previews: list[Preview]
    history: dict[str, Any]

    @property
    def words(self) -> list[str]:
        """The events' names, in order."""
        return [event for event, _ in self.events]

    @property
    def images(self) -> list[dict[str, Any]]:
        """Every file that the outputs show."""
        return [image for output in self.history["outputs"].values() for image in output["images"]]

    def message(self, event: str) -> dict[str, Any]:
        """Return the data of a message in the history."""
        return dict(self.history["status"]["messages"])[event]


@dataclass(slots=True)
class Comfy:
    """One client of one server."""

    http: httpx.AsyncClient
    socket: ClientConnection
    names: Names
    client_id: str
    _heard: list[tuple[str, dict[str, Any]] | Preview] = field(
        default_factory=list[tuple[str, dict[str, Any]] | Preview]
    )

    @property
    def differences(self) -> Differences:
        """Return what this server does otherwise than the captured one."""
        return Differences(self.names.version)

    def graph(self, **ksampler: Any) -> Graph:
        """Return the captured FLUX graph with this server's files, and these inputs of its KSampler."""
        text = (CAPTURES / "flux_lora.json").read_text()
        graph: Graph = json.loads(
            text.replace("<checkpoint>", self.names.checkpoint).replace("<lora>", self.names.lora)
        )
        graph["31"]["inputs"] |= ksampler
        return graph

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        """Send JSON."""
        return await self.http.post(path, json=body)

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a 200."""
        response = await self.http.get(path, params=query)
        assert response.status_code == 200, (path, response.status_code, response.text)
        return response.json()

    async def submit(self, graph: Graph, **body: Any) -> str:
        """Queue a graph under this client id and return its prompt id."""
        response = await self.post("/prompt", {"prompt": graph, "client_id": self.client_id, **body})
        assert response.status_code == 200, response.text
        return response.json()["prompt_id"]

    async def run(self, graph: Graph, **body: Any) -> Ended:
        """Queue a graph and wait for its end."""
        return await self.end_of(await self.submit(copy.deepcopy(graph), **body))

    async def hear(self) -> tuple[str, dict[str, Any]] | Preview:
        """Return the next frame from the socket."""
        frame = await self.socket.recv()
        if isinstance(frame, str):
            message = json.loads(frame)
            return message["type"], message["data"]
        return _preview(frame)

    async def hear_until(self, event: str, **data: Any) -> dict[str, Any]:
        """Wait for an event with these values; raises TimeoutError when it does not come."""
        async with asyncio.timeout(END_WAIT_S):
            while True:
                frame = await self.hear()
                self._heard.append(frame)
                if not isinstance(frame, Preview) and frame[0] == event and data.items() <= frame[1].items():
                    return frame[1]

    async def stop_all(self) -> None:
        """Leave the server idle, as it must be for whoever comes next."""
        await self.post("/queue", {"clear": True})
        await self.post("/interrupt")
        async with asyncio.timeout(END_WAIT_S):
            while (await self.get("/prompt"))["exec_info"]["queue_remaining"]:
                await self.hear()

    async def end_of(self, prompt_id: str) -> Ended:
        """Wait for the last event of a prompt, and read its history."""
        await self.hear_until("executing", node=None, prompt_id=prompt_id)
        heard, self._heard = self._heard, []
        history = await self.get(f"/history/{prompt_id}")
        return Ended(
            prompt_id,
            [frame for frame in heard if not isinstance(frame, Preview)],
            [frame for frame in heard if isinstance(frame, Preview)],
            history[prompt_id],
        )

    async def picture(self, image: dict[str, Any]) -> bytes:
        """Fetch a file that an output names."""
        response = await self.http.get("/view", params={key: image[key] for key in ("filename", "subfolder", "type")})
        assert response.status_code == 200, response.text
        return response.content


@asynccontextmanager
async def talking(url: str, names: Names, client_id: str | None = None) -> AsyncGenerator[Comfy]:
    """Connect a client; the first event, a status, has been heard when this begins."""
    client_id = client_id or uuid.uuid4().hex
    address = f"{url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
    async with (
        httpx.AsyncClient(base_url=url, timeout=END_WAIT_S, trust_env=False) as http,
        connect(address, proxy=None, max_size=None) as socket,
    ):
        comfy = Comfy(http, socket, names, client_id)
        event = await comfy.hear()
        assert not isinstance(event, Preview)
        assert event[0] == "status"
        assert event[1]["sid"] == client_id
        yield comfy


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _preview(frame: bytes) -> Preview:
    (kind,) = struct.unpack_from(">I", frame)
    (length,) = struct.unpack_from(">I", frame, 4)
    if kind == 4:
        return Preview(kind, json.loads(frame[8 : 8 + length]), frame[8 + length :])
    return Preview(kind, {"format": length}, frame[8:])
