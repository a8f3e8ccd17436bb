"""The ways of bytes in and out, as lean as can be: it is the server that is measured. Everything blocks."""

import hashlib
import json
import os
import struct
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import pybase64

from benchmarks.measuring import MIB

TUS = {"Tus-Resumable": "1.0.0"}
TUS_BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}
_RANK = 4
_TIMEOUT_S = 120.0


def write_lora(path: Path, size_bytes: int) -> str:
    """Write a LoRA of random bytes, about as large as asked for, and return its sha256 in hex."""
    width = max(1, size_bytes // (4 * _RANK))
    header: dict[str, object] = {}
    for index, (half, shape) in enumerate((("A", [_RANK, width]), ("B", [width, _RANK]))):
        start = index * 2 * _RANK * width
        key = f"transformer.single_transformer_blocks.0.attn.to_q.lora_{half}.weight"
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, start + 2 * _RANK * width]}
    text = json.dumps(header).encode()
    digest = hashlib.sha256()
    with path.open("wb") as file:
        left = 4 * _RANK * width
        piece = struct.pack("<Q", len(text)) + text
        while piece:
            file.write(piece)
            digest.update(piece)
            piece = os.urandom(min(left, MIB))
            left -= len(piece)
    return digest.hexdigest()


def begin_tus(url: str, size_bytes: int, metadata: Mapping[str, str]) -> str:
    """Begin an upload by tus and return its address; `url` is that of the collection."""
    told = ",".join(f"{key} {b64encode(text.encode()).decode()}" for key, text in metadata.items())
    connection = _connected(url)
    headers = {**TUS, "Upload-Length": str(size_bytes), "Upload-Metadata": told, "Content-Length": "0"}
    connection.request("POST", urlsplit(url).path, headers=headers)
    location = _read(connection.getresponse(), 201).headers["Location"]
    connection.close()
    return location


def send_by_tus(server: str, source: Path, filename: str, sha256: str, patch_bytes: int) -> None:
    """Upload a LoRA by tus, in PATCHes of a size; the server verifies and publishes it with the last of them."""
    size_bytes = source.stat().st_size
    location = begin_tus(f"{server}/uploads", size_bytes, {"filename": filename, "sha256": sha256})
    connection = _connected(location)
    with source.open("rb") as file:
        for offset in range(0, size_bytes, patch_bytes):
            count = min(patch_bytes, size_bytes - offset)
            connection.putrequest("PATCH", urlsplit(location).path)
            for name, text in {**TUS_BODY, "Content-Length": str(count), "Upload-Offset": str(offset)}.items():
                connection.putheader(name, text)
            connection.endheaders()
            connection.sock.sendfile(file, offset, count)
            _read(connection.getresponse(), 204)
    connection.close()


def send_by_chunks(server: str, source: Path, filename: str, sha256: str, chunk_bytes: int) -> None:
    """Upload a LoRA by the chunk tools over REST."""
    connection = _connected(server)
    upload_id = str(uuid4())

    def call(step: str, arguments: Mapping[str, object]) -> None:
        _call(connection, f"upload-lora-chunked-{step}", {"upload_id": upload_id, **arguments})

    size = {"total_size": source.stat().st_size, "chunk_size": chunk_bytes}
    call("start", {"filename": filename, "sha256": sha256, **size})
    with source.open("rb") as file:
        index = 0
        while data := file.read(chunk_bytes):
            call("append", {"chunk": pybase64.b64encode(data).decode(), "chunk_index": index})
            index += 1
    call("finish", {})
    connection.close()


def send_whole(server: str, source: Path, filename: str, sha256: str) -> None:
    """Upload a LoRA in one call over REST."""
    connection = _connected(server)
    content = pybase64.b64encode(source.read_bytes()).decode()
    _call(connection, "upload-lora", {"filename": filename, "content": content, "sha256": sha256})
    connection.close()


def put(url: str, source: Path) -> None:
    """Send a file by one PUT."""
    connection = _connected(url)
    with source.open("rb") as file:
        connection.putrequest("PUT", urlsplit(url).path)
        connection.putheader("Content-Length", str(source.stat().st_size))
        connection.endheaders()
        connection.sock.sendfile(file)
    _read(connection.getresponse(), 200)
    connection.close()


def fetch(url: str, target: Path, size_bytes: int, sha256: str, range_bytes: int) -> None:
    """Download a file by ranges of a size and compare its bytes, and what the server says of them, with its digest.

    Raises ValueError where they differ.
    """
    connection = _connected(url)
    path = urlsplit(url).path
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(MIB, range_bytes)))
    said = f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"
    with target.open("wb", buffering=0) as file:
        for start in range(0, size_bytes, range_bytes):
            connection.request("GET", path, headers={"Range": f"bytes={start}-{start + range_bytes - 1}"})
            answer = connection.getresponse()
            if answer.status != 206 or answer.headers["Repr-Digest"] != said:
                raise ValueError(f"GET {url}: {answer.status}, digest {answer.headers['Repr-Digest']}")
            while count := answer.readinto(buffer):
                digest.update(buffer[:count])
                file.write(buffer[:count])
    connection.close()
    if digest.hexdigest() != sha256:
        raise ValueError(f"GET {url} gave other bytes")


def _connected(url: str) -> HTTPConnection:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    connection.connect()
    return connection


def _call(connection: HTTPConnection, tool: str, arguments: Mapping[str, object]) -> None:
    connection.request("POST", "/mcp/tool", orjson.dumps({"tool": tool, "arguments": arguments}))
    _read(connection.getresponse(), 200)


def _read(answer: HTTPResponse, status: int) -> HTTPResponse:
    body = answer.read()
    if answer.status != status:
        raise ValueError(f"The server answered {answer.status}, not {status}: {body[:500]!r}")
    return answer
