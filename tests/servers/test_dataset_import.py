"""import-dataset: zips and folders as people have them, and those that are made to do harm."""

import os
import random
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import pytest

from aitk_mcp.settings import AitkSettings
from mcp_toolserver.errors import Conflict, Forbidden, InvalidArguments, NotFound
from mcp_toolserver.tools import Toolbox
from tests.servers.aitk import call, image_bytes, toolbox_in

PNG, JPEG = image_bytes(), image_bytes(form="JPEG", orientation=6)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def tools(tmp_path: Path, inbox: Path) -> Toolbox:
    return toolbox_in(tmp_path, import_roots=[inbox])


def zipped(path: Path, files: Mapping[str, bytes], method: int = ZIP_STORED) -> Path:
    """Write a zip of these files by their names as they stand."""
    with ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            info = ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, data)
    return path


def stored(folder: Path) -> dict[str, bytes]:
    """Return every file below the datasets folder, hidden ones too."""
    root = folder / "datasets"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def take(tools: Toolbox, path: Path | str, **given: Any) -> dict[str, Any]:
    return await call(tools, "import-dataset", path=str(path), dataset_name="cat", **given)


async def test_a_zip_becomes_a_dataset(tools: Toolbox, tmp_path: Path, inbox: Path) -> None:
    source = zipped(
        inbox / "cat.zip",
        {
            "cat/a.png": PNG,
            "cat/a.txt": "\ufefftok, eine Katze".encode(),
            "cat/b.JPG": JPEG,
            "cat/b.caption": b"tok asleep",
            "cat/c.webp": image_bytes(form="WEBP"),
            "cat/lonely.txt": b"of no image",
            "cat/notes.pdf": b"%PDF",
            "cat/moving.gif": b"GIF89a",
            "__MACOSX/cat/._a.png": b"junk",
            "cat/.DS_Store": b"junk",
        },
        ZIP_DEFLATED,
    )
    answer = await take(tools, source, trigger_word="tok")
    assert (answer["images_saved"], answer["captions_saved"]) == (3, 2)
    assert answer["path"] == str(tmp_path / "datasets" / "cat")
    assert answer["source"] == str(source)
    files = stored(tmp_path)
    names = (".aitk_size.json", "a.png", "a.txt", "b.JPG", "b.txt", "c.webp")
    assert sorted(files) == [f"cat/{name}" for name in names]
    assert files["cat/a.txt"].decode() == "tok, eine Katze"
    assert files["cat/b.JPG"] == JPEG
    assert answer["renamed"] == []
    ignored = {each["filename"]: each["reason"] for each in answer["ignored"]}
    assert set(ignored) == {"cat/notes.pdf", "cat/moving.gif", "__MACOSX/cat/._a.png", "cat/.DS_Store"} | {
        "cat/lonely.txt"
    }
    assert ignored["cat/moving.gif"] == "AI Toolkit does not train on .gif"
    assert answer["ignored_total"] == 5
    assert [problem["filename"] for problem in answer["problems"]] == ["c.webp"]
    assert (answer["problems_total"], answer["renamed_total"]) == (1, 0)


async def test_a_folder_becomes_a_dataset_by_its_relative_path_too(tools: Toolbox, tmp_path: Path, inbox: Path) -> None:
    (inbox / "cats" / "deep").mkdir(parents=True)
    (inbox / "cats" / "a.png").write_bytes(PNG)
    (inbox / "cats" / "deep" / "a.png").write_bytes(PNG)
    (inbox / "cats" / "deep" / "a.txt").write_text("deep down")
    answer = await take(tools, "cats")
    assert [(each["filename"], each["renamed_to"]) for each in answer["renamed"]] == [("deep/a.png", "deep_a.png")]
    assert stored(tmp_path)["cat/deep_a.txt"] == b"deep down"
    with pytest.raises(Conflict, match="exists already"):
        await take(tools, "cats")
    assert (await take(tools, "cats", overwrite=True))["images_saved"] == 2


async def test_a_large_import_answers_briefly(tools: Toolbox, inbox: Path) -> None:
    answer = await take(tools, zipped(inbox / "cat.zip", {f"{number:03}.png": PNG for number in range(250)}))
    assert (answer["images_saved"], len(answer["problems"]), answer["problems_total"]) == (250, 200, 250)


async def test_names_that_would_meet_are_told_apart(tools: Toolbox, tmp_path: Path, inbox: Path) -> None:
    files = {"x/a.png": PNG, "x_a.png": PNG, "x_a.jpg": JPEG, "X_A.png": PNG}
    answer = await take(tools, zipped(inbox / "cat.zip", files))
    names = {name.removeprefix("cat/") for name in stored(tmp_path)} - {".aitk_size.json"}
    assert answer["images_saved"] == len(names) == len({name.rpartition(".")[0].casefold() for name in names}) == 4


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "\\evil.png", "C:\\evil.png"),
        *("con.png", "a\u202egnp.png", "a/../b.pdf", "/etc/cron.d/evil.txt"),
    ],
)
async def test_a_name_that_leads_out_refuses_all_by_name(
    tools: Toolbox, tmp_path: Path, inbox: Path, name: str
) -> None:
    before = {path for path in tmp_path.rglob("*") if "inbox" not in path.parts}
    with pytest.raises(InvalidArguments, match="nothing was stored") as caught:
        await take(tools, zipped(inbox / "cat.zip", {"good.png": PNG, name: PNG}))
    assert [problem["filename"] for problem in caught.value.details["problems"]] == [name]
    assert {path for path in tmp_path.rglob("*") if "inbox" not in path.parts} == before


async def test_a_name_is_read_past_its_nul(tools: Toolbox, inbox: Path) -> None:
    source = zipped(inbox / "cat.zip", {"good.png": PNG, "a.png#/../evil.png": PNG})
    source.write_bytes(source.read_bytes().replace(b"a.png#", b"a.png\0"))
    with pytest.raises(InvalidArguments, match="nothing was stored"):
        await take(tools, source)


async def test_links_are_refused_by_name(tools: Toolbox, tmp_path: Path, inbox: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    with ZipFile(inbox / "link.zip", "w") as archive:
        archive.writestr("good.png", PNG)
        link = ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(secret))
    folder = inbox / "folder"
    folder.mkdir()
    (folder / "good.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(secret)
    for source in (inbox / "link.zip", folder):
        with pytest.raises(InvalidArguments, match=r"`link\.png`: it is a symbolic link"):
            await take(tools, source)
    (folder / "link.png").unlink()
    (folder / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(InvalidArguments, match=r"`elsewhere`: it is a symbolic link"):
        await take(tools, folder)
    assert stored(tmp_path) == {}


async def test_bombs_are_refused_before_they_unpack(tools: Toolbox, tmp_path: Path, inbox: Path) -> None:
    source = zipped(inbox / "bomb.zip", {"good.png": PNG, "bomb.png": bytes(30 * 1024 * 1024)}, ZIP_DEFLATED)
    with pytest.raises(InvalidArguments, match=r"`bomb\.png`: it unpacks to \d+ times its size"):
        await take(tools, source)
    assert stored(tmp_path) == {}


async def test_an_encrypted_entry_is_refused_by_name(tools: Toolbox, inbox: Path) -> None:
    source = zipped(inbox / "locked.zip", {"good.png": PNG, "locked.png": PNG})
    data = bytearray(source.read_bytes())
    central = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[central + 8] |= 1
    source.write_bytes(data)
    with pytest.raises(InvalidArguments, match=r"`locked\.png`: it is encrypted"):
        await take(tools, source)


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA])
async def test_damage_by_chance_is_refused_by_name_in_every_compression(
    tools: Toolbox, inbox: Path, method: int
) -> None:
    source = inbox / "cat.zip"
    whole = zipped(source, {"good.png": PNG}, method).read_bytes()
    chance = random.Random(method)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        source.write_bytes(damaged)
        try:
            await take(tools, source, overwrite=True)
        except InvalidArguments:
            refused += 1
    assert refused > 10


async def test_a_zip_of_a_later_version_or_a_name_in_no_code_is_no_zip(tools: Toolbox, inbox: Path) -> None:
    source = zipped(inbox / "cat.zip", {"good\u00e9.png": PNG})
    whole = source.read_bytes()
    directory = whole.rindex(b"PK\x01\x02")
    later = bytearray(whole)
    later[directory + 6] = 99
    for broken in (bytes(later), whole.replace("\u00e9".encode(), b"\xff\xff")):
        source.write_bytes(broken)
        with pytest.raises(InvalidArguments, match="no zip that can be read"):
            await take(tools, source)


async def test_names_that_disagree_are_damage_and_an_empty_one_is_no_image(tools: Toolbox, inbox: Path) -> None:
    source = zipped(inbox / "cat.zip", {"good\u00e9.png": PNG})
    source.write_bytes(source.read_bytes().replace("\u00e9".encode(), b"\xff\xff", 1))
    with pytest.raises(InvalidArguments, match="it is damaged in the archive"):
        await take(tools, source)
    assert (await take(tools, zipped(source, {"": PNG, "good.png": PNG})))["images_saved"] == 1


async def test_damage_is_found_wherever_it_is(tools: Toolbox, tmp_path: Path, inbox: Path) -> None:
    source = zipped(inbox / "cat.zip", {"good.png": PNG, "bad.png": PNG})
    data = bytearray(source.read_bytes())
    data[data.rindex(PNG) + 40] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(InvalidArguments, match=r"1 of 2 images were refused.*`bad\.png`: it is damaged"):
        await take(tools, source)
    for broken in (source.read_bytes()[:100], b"", b"<html>"):
        source.write_bytes(broken)
        with pytest.raises(InvalidArguments, match="no zip that can be read"):
            await take(tools, source)
    with pytest.raises(InvalidArguments, match=r"`cut\.png`: it does not decode"):
        await take(tools, zipped(source, {"cut.png": image_bytes(400, 400)[:-50]}))
    with pytest.raises(InvalidArguments, match=r"`a\.txt`: it is a caption that is no UTF-8"):
        await take(tools, zipped(source, {"a.png": PNG, "a.txt": "käse".encode("latin-1")}))
    with pytest.raises(InvalidArguments, match="holds no image"):
        await take(tools, zipped(source, {"a.txt": b"text"}))
    assert stored(tmp_path) == {}


async def test_only_the_import_roots_are_open(tools: Toolbox, tmp_path: Path, inbox: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(PNG)
    (inbox / "way_out").symlink_to(outside)
    (inbox / "cats.zip").write_bytes(b"")
    for path in (outside, "../outside", inbox / ".." / "outside", inbox / "way_out", "/etc/passwd", "/nowhere"):
        with pytest.raises(Forbidden, match="outside of the import roots"):
            await take(tools, path)
    with pytest.raises(NotFound) as caught:
        await take(tools, "cat.zip")
    assert caught.value.details["closest_matches"] == [str(inbox / "cats.zip")]
    with pytest.raises(Forbidden, match="no import root is set"):
        await take(toolbox_in(tmp_path / "other"), "cat.zip")


def test_the_import_roots_are_told_by_the_environment(tmp_path: Path) -> None:
    os.environ["AITK_MCP_IMPORT_ROOTS"] = f"{tmp_path}/a, {tmp_path}/b"
    try:
        assert AitkSettings().import_roots == (tmp_path / "a", tmp_path / "b")
    finally:
        del os.environ["AITK_MCP_IMPORT_ROOTS"]
    assert AitkSettings().import_roots == ()
