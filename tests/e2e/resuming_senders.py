"""Callers who send two files in turn under one name, and go on wherever the server lost them: one for each way in."""

import base64
import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4
from zipfile import ZipFile

import httpx

from tests.servers.aitk import image_bytes
from tests.unit.lora_files.files import FLUX_AI_TOOLKIT, pairs, write

CHUNK = 16 * 1024
LORA = "cat.safetensors"
TUS = {"Tus-Resumable": "1.0.0"}
Files = Mapping[str, bytes]
"""What is published of one upload, by name."""


async def call(http: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed."""
    answer = await http.post("/mcp/tool", json={"tool": tool, "arguments": arguments})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


class Sender(ABC):
    """Remember what was acknowledged; `files` are the two that take turns, `bodies` what is sent of them."""

    heals_at_start: ClassVar[bool] = False
    """Whether what a death left in the middle of publishing is put right by the next start of the server."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.files = self.drawn()
        self.bodies = [self.body(files) for files in self.files]
        self.sent = 0
        self.next_upload()

    def next_upload(self) -> None:
        """Begin with the next file."""
        self.upload_id = str(uuid4())
        self.acknowledged = 0

    @property
    def data(self) -> bytes:
        """Return what is being sent."""
        return self.bodies[self.sent % 2]

    @property
    def sha256(self) -> str:
        """Return its digest."""
        return hashlib.sha256(self.data).hexdigest()

    def server(self) -> tuple[str, ...]:
        """Return the module and the arguments of the server that takes such uploads; its ComfyUI does not run."""
        loras = self.folder / "comfyui" / "models" / "loras"
        loras.mkdir(parents=True, exist_ok=True)
        return ("comfy_mcp", "--comfyui-dir", str(self.folder / "comfyui"), "--comfyui-api-url", "http://127.0.0.1:9")

    def drawn(self) -> list[Files]:
        """Return two LoRAs of one size."""
        lora = write(self.folder / "source" / LORA, pairs(FLUX_AI_TOOLKIT, rank=4)).read_bytes()
        return [{LORA: lora}, {LORA: lora[:-4000] + self.chance.randbytes(4000)}]

    def body(self, files: Files) -> bytes:
        """Return what is sent of some files."""
        return files[LORA]

    def published(self) -> Files:
        """Return what others see of this upload; blocks."""
        found = (self.folder / "comfyui" / "models" / "loras").glob("*.safetensors")
        return {path.name: path.read_bytes() for path in found}

    def require_whole(self) -> None:
        """Fail unless what others see is the file that was acknowledged last, or the one on its way; blocks."""
        before: Files = self.files[(self.sent - 1) % 2] if self.sent else {}
        assert self.published() in (before, self.files[self.sent % 2]), "a partial file, or one that nobody sent"

    def note(self, received: int) -> None:
        """Keep an acknowledgement."""
        assert received >= self.acknowledged, "an acknowledged byte was lost"
        self.acknowledged = received

    async def send_one(self, http: httpx.AsyncClient) -> None:
        """Go on with one upload, from wherever it is, to its end."""
        await self.upload(http)
        self.sent += 1
        self.next_upload()

    @abstractmethod
    async def upload(self, http: httpx.AsyncClient) -> None:
        """Do so; an httpx.TransportError leaves it where it is."""


class Whole(Sender):
    """Send a LoRA in one call."""

    async def upload(self, http: httpx.AsyncClient) -> None:
        """Send it (again)."""
        content = base64.b64encode(self.data).decode()
        done = await call(http, "upload-lora", filename=LORA, content=content, sha256=self.sha256, overwrite=True)
        assert done["sha256"] == self.sha256


class Chunks(Sender):
    """Send a LoRA by the chunk tools."""

    async def upload(self, http: httpx.AsyncClient) -> None:
        """Start (again), send chunks and finish."""
        self.note((await self.start(http))["received_bytes"])
        while self.acknowledged < len(self.data):
            self.note(await self.send_some(http))
        done = await call(http, "upload-lora-chunked-finish", upload_id=self.upload_id)
        assert (done["sha256"], done["checksum_verified"]) == (self.sha256, True)

    async def start(self, http: httpx.AsyncClient) -> dict[str, Any]:
        """Begin or resume the upload."""
        return await call(
            http,
            "upload-lora-chunked-start",
            upload_id=self.upload_id,
            filename=LORA,
            total_size=len(self.data),
            chunk_size=CHUNK,
            sha256=self.sha256,
            overwrite=True,
        )

    async def send_some(self, http: httpx.AsyncClient) -> int:
        """Send the next chunk; returns how many bytes have arrived then."""
        index = self.acknowledged // CHUNK
        chunk = base64.b64encode(self.data[index * CHUNK : (index + 1) * CHUNK]).decode()
        told = await call(http, "upload-lora-chunked-append", upload_id=self.upload_id, chunk=chunk, chunk_index=index)
        return told["received_bytes"]


async def patched(http: httpx.AsyncClient, sender: Sender) -> int:
    """Send a piece by tus, at times with its checksum; returns how many bytes have arrived then."""
    data = sender.data[sender.acknowledged : sender.acknowledged + sender.chance.randint(1, 6 * CHUNK)]
    headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(sender.acknowledged)}
    if sender.chance.random() < 0.5:
        headers["Upload-Checksum"] = f"sha256 {base64.b64encode(hashlib.sha256(data).digest()).decode()}"
    answer = await http.patch(f"/uploads/{sender.upload_id}", headers=headers, content=data)
    assert answer.status_code == 204, answer.text
    return int(answer.headers["Upload-Offset"])


class Mixed(Chunks):
    """Send a LoRA by chunks and by tus in turn."""

    async def send_some(self, http: httpx.AsyncClient) -> int:
        """Send something by either."""
        return await (patched(http, self) if self.chance.random() < 0.5 else super().send_some(http))


class Tus(Sender):
    """Send a LoRA by tus, which installs it with its last byte."""

    filename: ClassVar[str] = LORA

    async def upload(self, http: httpx.AsyncClient) -> None:
        """Create the upload (again), ask how far it is, and send the rest."""
        pairs = {"filename": self.filename, "upload_id": self.upload_id, "sha256": self.sha256, "overwrite": "true"}
        told = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())
        headers = {**TUS, "Upload-Length": str(len(self.data)), "Upload-Metadata": told}
        created = await http.post("/uploads", headers=headers)
        assert created.status_code == 201, created.text
        asked = await http.head(f"/uploads/{self.upload_id}", headers=TUS)
        assert asked.status_code == 200
        self.note(int(asked.headers["Upload-Offset"]))
        while self.acknowledged < len(self.data):
            self.note(await patched(http, self))


class Zips(Tus):
    """Send a zip of images by tus, and make a dataset of it."""

    heals_at_start = True
    filename = "cats.zip"

    def server(self) -> tuple[str, ...]:
        """Return aitk_mcp."""
        return ("aitk_mcp", "--trainer", "embedded")

    def drawn(self) -> list[Files]:
        """Return two datasets."""
        return [
            {name: image_bytes(colour=colour) for name, colour in files.items()}
            for files in ({"a.png": "teal", "b.png": "red"}, {"b.png": "blue", "c.png": "gold"})
        ]

    def body(self, files: Files) -> bytes:
        """Return a zip of them, with something that is passed over, so that it takes a while to be sent."""
        content = BytesIO()
        with ZipFile(content, "w") as archive:
            for name, data in {**files, "notes.bin": self.chance.randbytes(200_000)}.items():
                archive.writestr(name, data)
        return content.getvalue()

    def published(self) -> Files:
        """Return the images of the dataset; blocks."""
        found = (self.folder / "data" / "datasets" / "cats").glob("*.png")
        return {path.name: path.read_bytes() for path in found}

    async def upload(self, http: httpx.AsyncClient) -> None:
        """Send the zip, and import it; that it was imported before is what a lost answer would have said."""
        await super().upload(http)
        arguments = {"upload_id": self.upload_id, "dataset_name": "cats", "overwrite": True}
        answer = await http.post("/mcp/tool", json={"tool": "import-dataset", "arguments": arguments})
        assert answer.status_code == 200 or answer.json()["error"]["details"]["status"] == "published", answer.text


SENDERS: Mapping[str, Callable[[Path, random.Random], Sender]] = {
    "chunks": Chunks,
    "tus": Tus,
    "mixed": Mixed,
    "one call": Whole,
    "zips": Zips,
}
