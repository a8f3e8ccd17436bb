"""The dataset tools: all or nothing, names, captions, sizes, and what can never be deleted."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, ToolError
from mcp_toolserver.tools import Call, Toolbox
from tests.servers.aitk import call, image, image_bytes, toolbox_in


@pytest.fixture
def tools(tmp_path: Path) -> Toolbox:
    return toolbox_in(tmp_path)


def stored(folder: Path) -> dict[str, bytes]:
    """Return every file below the datasets folder, hidden ones too."""
    root = folder / "datasets"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def test_a_dataset_is_stored_as_ai_toolkit_wants_it(tools: Toolbox, tmp_path: Path) -> None:
    answer = await call(
        tools,
        "upload-dataset",
        dataset_name="Pixel Cat!",
        images=[
            image("a.png", "a cat, sitting"),
            image("b.jpg", None, form="JPEG", width=100, height=50, orientation=6),
            image("狗 1.webp", "zwei Wörter\nund 猫", form="WEBP"),
        ],
        default_caption="something teal",
    )
    folder = tmp_path / "datasets" / "pixel_cat_"
    assert (answer["dataset_name"], answer["requested_name"]) == ("pixel_cat_", "Pixel Cat!")
    assert answer["path"] == str(folder)
    assert (answer["images_saved"], answer["captions_saved"], answer["problems"]) == (3, 3, [])
    assert (folder / "b.txt").read_text() == "something teal"
    assert (folder / "狗 1.txt").read_bytes().decode() == "zwei Wörter\nund 猫"
    sizes = json.loads(Path(answer["size_file"]).read_text())
    at = {name: (folder / name).stat() for name in ("a.png", "b.jpg", "狗 1.webp")}
    assert sizes.pop("__version__") == "0.1.2"
    assert sizes == {
        "/a.png": [64, 48, f"{at['a.png'].st_size}:{int(at['a.png'].st_mtime)}"],
        "/b.jpg": [50, 100, f"{at['b.jpg'].st_size}:{int(at['b.jpg'].st_mtime)}"],
        "/狗 1.webp": [64, 48, f"{at['狗 1.webp'].st_size}:{int(at['狗 1.webp'].st_mtime)}"],
    }
    walked = [name for _, _, names in os.walk(folder) for name in names if Path(name).suffix not in (".txt", ".json")]
    assert list(sizes) == [f"/{name}" for name in walked]
    assert not list((tmp_path / "datasets" / ".staging").iterdir())


async def test_one_bad_image_refuses_the_call_and_each_is_named(tools: Toolbox, tmp_path: Path) -> None:
    whole = image_bytes(form="JPEG", width=200, height=200)
    bad: list[dict[str, Any]] = [
        image("good.png"),
        {"filename": "cut.jpg", "content": base64.b64encode(whole[: len(whole) // 2]).decode()},
        {"filename": "page.png", "content": base64.b64encode(b"<!DOCTYPE html>").decode()},
        {"filename": "letters.png", "content": "not base64!"},
        {"filename": "empty.png", "content": ""},
    ]
    with pytest.raises(InvalidArguments) as caught:
        await call(tools, "upload-dataset", dataset_name="cat", images=bad)
    problems = {problem["filename"]: problem["message"] for problem in caught.value.details["problems"]}
    assert list(problems) == ["cut.jpg", "page.png", "letters.png", "empty.png"]
    assert "does not decode" in problems["cut.jpg"]
    assert "web page" in problems["page.png"]
    assert "4 of 5 images were refused, and nothing was stored" in caught.value.message
    assert stored(tmp_path) == {}


async def test_an_image_with_a_bad_name_hides_no_broken_one(tools: Toolbox, tmp_path: Path) -> None:
    images = [image("good.png"), image("../cat.png"), {"filename": "page.png", "content": "PCFET0NUWVBFIGh0bWw+"}]
    with pytest.raises(InvalidArguments, match="2 of 3 images") as caught:
        await call(tools, "upload-dataset", dataset_name="cat", images=images)
    assert [problem["filename"] for problem in caught.value.details["problems"]] == ["../cat.png", "page.png"]
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize(
    ("filename", "said"),
    [
        ("../cat.png", "dot"),
        ("/etc/cat.png", "absolute"),
        ("sub/cat.png", "folder in it"),
        (".cat.png", "dot"),
        ("cat.gif", ".webp"),
        ("cat", ".webp"),
        ("cat\x00.png", "character"),
        ("", "empty"),
    ],
)
async def test_file_names_that_lead_elsewhere_are_refused(
    tools: Toolbox, tmp_path: Path, filename: str, said: str
) -> None:
    with pytest.raises(InvalidArguments, match=said):
        await call(tools, "upload-dataset", dataset_name="cat", images=[image(filename)])
    assert not (tmp_path / "datasets").exists()


async def test_two_images_never_share_a_name_or_a_caption(tools: Toolbox, tmp_path: Path) -> None:
    with pytest.raises(InvalidArguments, match=r"same name as `cat\.png`"):
        await call(tools, "upload-dataset", dataset_name="cat", images=[image("cat.png"), image("CAT.PNG")])
    images = [image("cat.png", "one"), image("cat.jpg", "two", form="JPEG"), image("cat_jpg.webp", "3", form="WEBP")]
    answer = await call(tools, "upload-dataset", dataset_name="cat", images=images)
    assert [(each["filename"], each["renamed_to"]) for each in answer["renamed"]] == [("cat.jpg", "cat_jpg_.jpg")]
    files = stored(tmp_path)
    assert (files["cat/cat.txt"], files["cat/cat_jpg_.txt"], files["cat/cat_jpg.txt"]) == (b"one", b"two", b"3")


async def test_a_taken_name_is_kept_unless_overwrite_is_said(tools: Toolbox, tmp_path: Path) -> None:
    await call(tools, "upload-dataset", dataset_name="cat", images=[image("old.png")])
    before = stored(tmp_path)
    with pytest.raises(Conflict, match="exists already"):
        await call(tools, "upload-dataset", dataset_name="CAT", images=[image("new.png")])
    with pytest.raises(InvalidArguments):
        await call(
            tools, "upload-dataset", dataset_name="cat", images=[{"filename": "a.png", "content": "x"}], overwrite=True
        )
    assert stored(tmp_path) == before
    await call(tools, "upload-dataset", dataset_name="cat", images=[image("new.png")], overwrite=True)
    assert sorted(stored(tmp_path)) == ["cat/.aitk_size.json", "cat/new.png", "cat/new.txt"]


async def test_a_caption_without_the_trigger_is_reported_with_its_cure(tools: Toolbox) -> None:
    answer = await call(
        tools,
        "upload-dataset",
        dataset_name="cat",
        images=[
            image("a.png", "tok asleep"),
            image("b.png", "a cat"),
            image("c.png", None),
            image("d.png", "[trigger]"),
        ],
        trigger_word="tok",
    )
    problems = {problem["filename"]: problem for problem in answer["problems"]}
    assert list(problems) == ["b.png", "c.png"]
    assert "lacks the trigger word `tok`" in problems["b.png"]["problem"]
    assert "create-training-config" in problems["b.png"]["cure"]
    assert "set-caption" in problems["c.png"]["cure"]


async def test_a_data_url_is_taken(tools: Toolbox) -> None:
    sent = image("a.png")
    sent["data"] = "data:image/png;base64," + sent.pop("content")
    assert (await call(tools, "upload-dataset", dataset_name="cat", images=[sent]))["images_saved"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "cat", "images": []}, "the argument is `dataset_name`"),
        ({"dataset_name": "cat", "images": []}, "images"),
        ({"dataset_name": "cat", "files": []}, "the argument is `images`"),
        ({"dataset_name": "cat", "images": [{"filename": "a.png", "image": ""}]}, "`content`"),
        ({"dataset_name": "...", "images": [image()]}, "no letter a-z and no digit"),
    ],
)
async def test_classic_mistakes_of_an_upload_are_cured(tools: Toolbox, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await tools.call("upload-dataset", arguments, Call())
    assert said in caught.value.message


async def test_datasets_are_listed_and_shown_page_by_page(tools: Toolbox, tmp_path: Path) -> None:
    assert (await call(tools, "list-datasets"))["datasets"] == []
    await call(tools, "upload-dataset", dataset_name="cat", images=[image(f"{n}.png", f"cat {n}") for n in range(3)])
    (tmp_path / "datasets" / "Made By Hand").mkdir()
    listed = await call(tools, "list-datasets")
    assert [(each["dataset_name"], each["images"]) for each in listed["datasets"]] == [("Made By Hand", 0), ("cat", 3)]
    assert listed["datasets"][1]["captions"] == 3
    first = await call(tools, "get-dataset", dataset_name="Cat", limit=2)
    assert [item["filename"] for item in first["items"]] == ["0.png", "1.png"]
    assert first["items"][0] == {
        "filename": "0.png",
        "caption": "cat 0",
        "width": 64,
        "height": 48,
        "size_bytes": len(image_bytes()),
        "url": "http://127.0.0.1:8190/datasets/cat/0.png",
        "thumbnail_url": "http://127.0.0.1:8190/datasets/cat/0.png?thumb=1",
    }
    rest = await call(tools, "get-dataset", dataset_name="cat", limit=2, cursor=first["next_cursor"])
    assert [item["filename"] for item in rest["items"]] == ["2.png"]
    assert rest["next_cursor"] is None
    with pytest.raises(InvalidArguments, match="cursor"):
        await call(tools, "get-dataset", dataset_name="cat", cursor="-1")
    with pytest.raises(NotFound) as caught:
        await call(tools, "get-dataset", dataset_name="cats")
    assert caught.value.details["closest_matches"] == ["cat"]


async def test_captions_are_set_and_removed(tools: Toolbox, tmp_path: Path) -> None:
    await call(tools, "upload-dataset", dataset_name="cat", images=[image("a.png")])
    answer = await call(tools, "set-caption", dataset_name="cat", filename="a.png", caption="tok ü")
    assert Path(answer["caption_file"]).read_text() == "tok ü"
    await call(tools, "set-caption", dataset_name="cat", filename="a.png", caption=" ")
    assert sorted(stored(tmp_path)) == ["cat/.aitk_size.json", "cat/a.png"]
    with pytest.raises(NotFound) as caught:
        await call(tools, "set-caption", dataset_name="cat", filename="b.png", caption="x")
    assert caught.value.details["closest_matches"] == ["a.png"]
    with pytest.raises(InvalidArguments):
        await call(tools, "set-caption", dataset_name="cat", filename="../../a.png", caption="x")


async def test_images_are_deleted_all_or_none_and_the_size_file_follows(tools: Toolbox, tmp_path: Path) -> None:
    await call(tools, "upload-dataset", dataset_name="cat", images=[image("a.png"), image("b.png"), image("c.png")])
    before = stored(tmp_path)
    with pytest.raises(NotFound):
        await call(tools, "delete-images", dataset_name="cat", filenames=["a.png", "z.png"])
    with pytest.raises(Conflict, match="without an image"):
        await call(tools, "delete-images", dataset_name="cat", filenames=["a.png", "b.png", "c.png"])
    assert stored(tmp_path) == before
    answer = await call(tools, "delete-images", dataset_name="cat", filenames=["a.png", "a.png"])
    assert (answer["deleted"], answer["images"]) == (1, 2)
    files = stored(tmp_path)
    assert sorted(files) == ["cat/.aitk_size.json", "cat/b.png", "cat/b.txt", "cat/c.png", "cat/c.txt"]
    assert sorted(json.loads(files["cat/.aitk_size.json"])) == ["/b.png", "/c.png", "__version__"]


@pytest.mark.parametrize("name", ["", ".", "..", "../cat", "/", "...", "*", ".staging", "~", "猫"])
async def test_no_name_but_a_datasets_own_reaches_a_delete(tools: Toolbox, tmp_path: Path, name: str) -> None:
    await call(tools, "upload-dataset", dataset_name="other", images=[image("a.png")])
    before = stored(tmp_path)
    with pytest.raises(ToolError):
        await call(tools, "delete-dataset", dataset_name=name)
    assert stored(tmp_path) == before


async def test_a_dataset_is_deleted_with_everything_in_it(tools: Toolbox, tmp_path: Path) -> None:
    await call(tools, "upload-dataset", dataset_name="cat", images=[image("a.png")])
    answer = await call(tools, "delete-dataset", dataset_name="cat")
    assert answer["images"] == 1
    assert stored(tmp_path) == {}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "datasets" / "link").symlink_to(elsewhere)
    with pytest.raises(ToolError, match="is a link"):
        await call(tools, "delete-dataset", dataset_name="link")
    assert elsewhere.is_dir()
