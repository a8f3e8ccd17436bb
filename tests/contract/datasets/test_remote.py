"""What only a disk behind an API can do to datasets: break off, answer nonsense, and delete more than it was told."""

import socket
from collections.abc import Awaitable, Callable, Generator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from aitk_mcp.datasets.remote import RemoteDatasets
from aitk_mcp.datasets.routes import remote_dataset_routes
from aitk_mcp.trainers.ui_datasets import UiDatasets
from aitk_mcp.trainers.ui_disk import UiDisk
from aitk_mcp.trainers.ui_http import UiHttp
from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Conflict, Forbidden
from tests.contract.datasets.conftest import drawn
from tests.fakes.aitk_ui import FakeAitkUi

ROOT = Path("/far/away/datasets")
UPLOAD = "/api/datasets/upload"
Serve = Callable[[ASGIApp], str]


@pytest.fixture
def remote(far_away: FakeAitkUi, tmp_path: Path) -> Generator[RemoteDatasets]:
    """Give the datasets of a stand-in on another machine."""
    with far_away.serving() as url:
        yield RemoteDatasets(UiHttp(url), ROOT, tmp_path / "copies")


def on_disk(fake: FakeAitkUi, name: str = "cats") -> dict[str, bytes]:
    """Return the files of a dataset on the other machine's disk."""
    folder = fake.root / "datasets" / name
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def left_here(remote: RemoteDatasets) -> list[Path]:
    """Return what uploads have left on this machine."""
    return list(remote.workplace.glob("*"))


async def test_names_that_ai_toolkit_would_make_one_arrive_as_two(remote: RemoteDatasets, far_away: FakeAitkUi) -> None:
    stored = await remote.upload("cats", [drawn("狗.png", "dog"), drawn("猫.png", "cat"), drawn("a b.png", None)])
    there = on_disk(far_away)
    assert len(there) == 5
    assert all(name.isascii() for name in there)
    renamed = {each.filename: each.renamed_to for each in stored.renamed}
    assert set(renamed) == {"狗.png", "猫.png", "a b.png"}
    assert set(renamed.values()) == {name for name in there if name.endswith(".png")}
    assert "`狗.png`" in stored.renamed[0].reason
    # Nothing is remembered here: another server reads the same names.
    again = RemoteDatasets(UiHttp(far_away.url), ROOT, remote.workplace)
    assert [image.filename for image in await again.images("cats")] == ["a b.png", "狗.png", "猫.png"]
    # AI Toolkit's own pages show the other names, which are taken too.
    await remote.set_caption("cats", renamed["狗.png"], "a dog")
    assert (await remote.images("cats"))[1].caption == "a dog"
    assert ".aitk_size.json" not in there
    assert "is left to AI Toolkit" in stored.notes[0]


async def test_many_files_go_in_batches(remote: RemoteDatasets, far_away: FakeAitkUi) -> None:
    await remote.upload("cats", [drawn(f"{index}.png", f"cat {index}", side=8) for index in range(40)])
    assert far_away.requests.count(f"POST {UPLOAD}") == 3
    assert len(on_disk(far_away)) == 80
    assert left_here(remote) == []


@pytest.mark.parametrize(
    "answer",
    [
        JSONResponse({"error": "Error uploading files"}, 500),
        JSONResponse({"message": "Files uploaded successfully", "files": ["other.png"]}),
        HTMLResponse("<html>Sign in</html>"),
        PlainTextResponse('{"files": [', media_type="application/json"),
    ],
)
async def test_a_new_dataset_that_does_not_arrive_is_taken_back(
    remote: RemoteDatasets, far_away: FakeAitkUi, answer: Response
) -> None:
    far_away.answers[UPLOAD] = [None, answer]
    with pytest.raises(BackendRejected) as caught:
        await remote.upload("cats", [drawn(f"{index}.png", side=8) for index in range(40)])
    assert far_away.url in caught.value.message
    assert await remote.all() == []
    assert left_here(remote) == []


async def test_a_dataset_that_is_replaced_in_vain_is_as_it_was(remote: RemoteDatasets, far_away: FakeAitkUi) -> None:
    await remote.upload("cats", [drawn("a.png", "a"), drawn("b.jpg", "b"), drawn("c.png", None), drawn("d.png", "d")])
    before = on_disk(far_away)
    new = [drawn("a.png", None, colour="red"), drawn("b.png", "new"), drawn("c.png", "new", colour="red")]
    new += [drawn(f"{index}.png", side=8) for index in range(40)]
    far_away.answers[UPLOAD] = [None, JSONResponse({"error": "Error uploading files"}, 500)]
    with pytest.raises(BackendRejected):
        await remote.upload("cats", new, overwrite=True)
    assert on_disk(far_away) == before
    assert left_here(remote) == []


async def test_what_cannot_be_put_back_is_kept_here_and_named(
    remote: RemoteDatasets, far_away: FakeAitkUi, tmp_path: Path
) -> None:
    old = drawn("a.png", "old")
    await remote.upload("cats", [old, drawn("b.png")])
    error = JSONResponse({"error": "Error uploading files"}, 500)
    far_away.answers[UPLOAD] = [None, error, error]
    new = [drawn("a.png", "new", colour="red"), *(drawn(f"{index}.png", side=8) for index in range(40))]
    with pytest.raises(BackendRejected) as caught:
        await remote.upload("cats", new, overwrite=True)
    kept = Path(caught.value.details["kept"])
    assert kept.parent == tmp_path / "rescued"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {"a.png": old.content, "a.txt": b"old"}
    assert left_here(remote) == []


async def test_a_server_that_is_killed_while_it_replaces_keeps_what_it_had_copied(
    remote: RemoteDatasets, tmp_path: Path
) -> None:
    for folder in ("new", "old"):
        (remote.workplace / "cats.01" / folder).mkdir(parents=True)
        (remote.workplace / "cats.01" / folder / "a.png").write_bytes(folder.encode())
    await remote.recover()
    assert not remote.workplace.exists()
    assert (tmp_path / "rescued" / "cats.01" / "a.png").read_bytes() == b"old"
    assert len(list((tmp_path / "rescued").rglob("*.png"))) == 1


async def test_what_was_stored_otherwise_is_noticed(remote: RemoteDatasets, far_away: FakeAitkUi) -> None:
    far_away.answers[UPLOAD] = [JSONResponse({"message": "Files uploaded successfully", "files": ["a.png", "a.txt"]})]
    with pytest.raises(BackendRejected, match="not on AI Toolkit's disk as they were sent") as caught:
        await remote.upload("cats", [drawn("a.png")])
    assert caught.value.details["filenames"] == ["a.png"]
    assert await remote.all() == []


async def test_what_cannot_be_taken_back_is_told(remote: RemoteDatasets, far_away: FakeAitkUi) -> None:
    far_away.answers[UPLOAD] = [JSONResponse({"error": "Error uploading files"}, 500)]
    far_away.answers["/api/datasets/delete"] = [JSONResponse({"error": "Failed to delete dataset"}, 500)]
    with pytest.raises(BackendRejected) as caught:
        await remote.upload("cats", [drawn("a.png")])
    assert caught.value.details["left_over"] == str(ROOT / "cats")


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../output", "a/b", ".zips", "a\\b"])
async def test_no_name_leads_out_of_the_folder_of_datasets(
    remote: RemoteDatasets, far_away: FakeAitkUi, name: str
) -> None:
    api = UiDatasets(UiHttp(far_away.url))
    for refused in (api.delete(name), api.create(name), api.media(name)):
        with pytest.raises(Forbidden, match="dataset_name"):
            await refused
    assert far_away.requests == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/far/away", "/far/away/datasets", "/far/away/datasets/../x", "/far"])
async def test_no_file_is_deleted_outside_of_its_folder(far_away: FakeAitkUi, path: str) -> None:
    with pytest.raises(Forbidden, match="does not lie in"):
        await UiDisk(UiHttp("http://127.0.0.1:9")).delete(path, below=str(ROOT))
    assert far_away.requests == []


async def test_a_file_that_changes_while_it_is_read_is_not_mixed(remote: RemoteDatasets, far_away: FakeAitkUi) -> None:
    await remote.upload("cats", [drawn("a.png")])
    state = await remote.disk.state(str(ROOT / "cats" / "a.png"))
    (far_away.root / "datasets" / "cats" / "a.png").write_bytes(b"other bytes")
    with pytest.raises(Conflict, match="was changed"):
        async for _ in remote.disk.batches(str(ROOT / "cats" / "a.png"), 0, state.size_bytes, state.tag):
            pass


async def test_pictures_pass_through_with_ranges(remote: RemoteDatasets, far_away: FakeAitkUi, serve: Serve) -> None:
    image = drawn("狗 (1).png", side=600)
    await remote.upload("cats", [image])
    url = serve(Starlette(routes=remote_dataset_routes(remote)))
    async with httpx.AsyncClient(base_url=url) as client:
        whole = await client.get("/datasets/cats/狗 (1).png")
        part = await client.get("/datasets/cats/狗 (1).png", headers={"Range": "bytes=10-19"})
        same = await client.get("/datasets/cats/狗 (1).png", headers={"If-None-Match": whole.headers["etag"]})
        past = await client.get("/datasets/cats/狗 (1).png", headers={"Range": "bytes=999999-"})
        small = await client.get("/datasets/cats/狗 (1).png", params={"thumb": "1"})
    assert whole.content == image.content
    assert (part.status_code, part.content) == (206, (image.content or b"")[10:20])
    assert (same.status_code, past.status_code) == (304, 416)
    with Image.open(BytesIO(small.content)) as found:
        assert (found.format, found.size) == ("JPEG", (256, 128))


CALLS: dict[str, Callable[[RemoteDatasets], Awaitable[object]]] = {
    "all": lambda remote: remote.all(),
    "summary": lambda remote: remote.summary("cats"),
    "images": lambda remote: remote.images("cats"),
    "upload": lambda remote: remote.upload("cats", [drawn("a.png")]),
    "set_caption": lambda remote: remote.set_caption("cats", "a.png", "a cat"),
    "delete_images": lambda remote: remote.delete_images("cats", ["a.png"]),
    "delete": lambda remote: remote.delete("cats"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "response",
    [
        HTMLResponse("<html>Sign in</html>"),
        PlainTextResponse('["cats"', media_type="application/json"),
        JSONResponse({"datasets": []}),
        JSONResponse(["cats"]),
        Response(status_code=500),
    ],
)
async def test_whatever_answers_that_is_not_ai_toolkit_is_told_with_its_address(
    serve: Serve, tmp_path: Path, call: str, response: Response
) -> None:
    async def answer(request: Request) -> Response:
        return response

    url = serve(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])]))
    remote = RemoteDatasets(UiHttp(url), ROOT, tmp_path / "copies")
    with pytest.raises((BackendRejected, Conflict)) as caught:
        await CALLS[call](remote)
    assert isinstance(caught.value, Conflict) == (call == "upload" and response.body == b'["cats"]')
    if isinstance(caught.value, BackendRejected):
        assert url in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("call", CALLS)
async def test_nobody_there_is_unavailable_with_its_address(tmp_path: Path, call: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        remote = RemoteDatasets(UiHttp(url), ROOT, tmp_path / "copies")
        with pytest.raises(BackendUnavailable, match=url):
            await CALLS[call](remote)
