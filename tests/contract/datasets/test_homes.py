"""What every home of datasets does the same way."""

from pathlib import Path

import pytest
from anyio import to_thread

from aitk_mcp.datasets.check import check_dataset
from aitk_mcp.datasets.paths import locate
from aitk_mcp.datasets.port import DatasetHome
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, ToolError
from tests.contract.datasets.conftest import Drawn, Users, drawn

NAME = "contract cats!"
FOLDER = "contract_cats_"


async def names(home: DatasetHome) -> list[str]:
    """Return the names of the datasets that the tests make."""
    return [each.name for each in await home.all() if each.name.startswith("contract")]


async def captions(home: DatasetHome, name: str = FOLDER) -> dict[str, str | None]:
    """Return the captions of a dataset by file name."""
    return {image.filename: image.caption for image in await home.images(name)}


async def test_images_come_back_under_their_names_with_captions_and_sizes(home: DatasetHome) -> None:
    images = [
        drawn("狗.png", "ein Hund,\nrot"),
        drawn("猫.png", "猫", side=32),
        drawn("cat photo (1).JPG", None, orientation=6),
        drawn("b%20.webp"),
    ]
    reports: list[float] = []

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        assert total is not None
        assert done <= total
        reports.append(done)

    stored = await home.upload(NAME, images, report=report)
    assert (stored.name, stored.path, stored.images, stored.captions) == (FOLDER, home.root / FOLDER, 4, 3)
    assert reports == sorted(set(reports))
    found = {image.filename: image for image in await home.images(FOLDER)}
    assert list(found) == sorted(image.filename for image in images)
    assert {name: image.caption for name, image in found.items()} == {image.filename: image.caption for image in images}
    assert {name: (image.width, image.height) for name, image in found.items()} == {
        "狗.png": (64, 32),
        "猫.png": (32, 16),
        "cat photo (1).JPG": (32, 64),
        "b%20.webp": (64, 32),
    }
    assert [found[image.filename].size_bytes for image in images] == [len(image.content or b"") for image in images]
    assert [image.filename for image in await home.images(FOLDER, 1, 2)] == sorted(found)[1:3]
    summary = await home.summary(NAME)
    assert (summary.name, summary.path, summary.images, summary.captions) == (FOLDER, home.root / FOLDER, 4, 3)


async def test_the_bytes_are_those_that_were_sent(home: DatasetHome) -> None:
    images = [drawn("狗.png", "a dog"), drawn("猫.png", None, colour="red")]
    await home.upload(NAME, images)
    async with home.at_hand(FOLDER) as folder:
        assert folder.name == FOLDER
        there = await to_thread.run_sync(
            lambda: {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}
        )
    assert there == {"狗.png": images[0].content, "狗.txt": b"a dog", "猫.png": images[1].content}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Drawn("page.png", None, None), "no image"),
        (Drawn("cut.jpg", None, (drawn("cut.jpg", side=400).content or b"")[:700]), "cut.jpg"),
        (drawn("../up.png"), "dot"),
        (drawn("notes.gif"), ".webp"),
    ],
)
async def test_one_bad_image_leaves_nothing_behind(home: DatasetHome, bad: Drawn, said: str) -> None:
    with pytest.raises(InvalidArguments, match="nothing was stored") as caught:
        await home.upload(NAME, [drawn("good.png"), bad])
    assert said in caught.value.message
    assert await names(home) == []


@pytest.mark.parametrize("name", ["", ".", "..", "/", "猫", "../..", "   "])
async def test_a_name_without_letters_reaches_no_disk(home: DatasetHome, name: str) -> None:
    await home.upload(NAME, [drawn("a.png")])
    for refused in (home.upload(name, [drawn("a.png")], overwrite=True), home.delete(name), home.summary(name)):
        with pytest.raises((InvalidArguments, NotFound)):
            await refused
    assert await names(home) == [FOLDER]
    assert await captions(home) == {"a.png": "a cat"}


async def test_a_name_that_is_taken_is_replaced_only_on_demand(home: DatasetHome) -> None:
    await home.upload(NAME, [drawn(name, "old") for name in ("a.png", "b.jpg", "c.png", "狗.png")])
    with pytest.raises(Conflict, match="exists already"):
        await home.upload(NAME, [drawn("a.png")])
    new = [drawn("a.png", "new", colour="red"), drawn("b.png", None), drawn("c.png", None), drawn("猫.png", "new")]
    stored = await home.upload(NAME, new, overwrite=True)
    assert (stored.images, stored.captions) == (4, 2)
    assert await captions(home) == {"a.png": "new", "b.png": None, "c.png": None, "猫.png": "new"}
    async with home.at_hand(FOLDER) as folder:
        assert await to_thread.run_sync((folder / "a.png").read_bytes) == new[0].content


async def test_captions_are_written_and_removed(home: DatasetHome) -> None:
    await home.upload(NAME, [drawn("狗 (1).png", None), drawn("b.png", "b")])
    file = await home.set_caption(NAME, "狗 (1).png", 'ein "Hund",\n100 % rot\\')
    assert (file.parent, file.suffix) == (home.root / FOLDER, ".txt")
    assert (await captions(home))["狗 (1).png"] == 'ein "Hund",\n100 % rot\\'
    await home.set_caption(NAME, "狗 (1).png", " ")
    await home.set_caption(NAME, "狗 (1).png", "")
    assert await captions(home) == {"狗 (1).png": None, "b.png": "b"}
    with pytest.raises(NotFound) as caught:
        await home.set_caption(NAME, "c.png", "no image")
    assert "b.png" in caught.value.details["closest_matches"]


async def test_images_are_deleted_all_or_none(home: DatasetHome) -> None:
    await home.upload(NAME, [drawn("狗.png"), drawn("b.png"), drawn("c.png")])
    with pytest.raises(NotFound, match=r"d\.png"):
        await home.delete_images(FOLDER, ["狗.png", "d.png"])
    with pytest.raises(Conflict, match="without an image"):
        await home.delete_images(FOLDER, ["狗.png", "b.png", "c.png"])
    assert len(await home.images(FOLDER)) == 3
    assert await home.delete_images(FOLDER, ["狗.png", "c.png"]) == 1
    assert await captions(home) == {"b.png": "a cat"}


async def test_a_dataset_is_deleted_and_others_stay(home: DatasetHome) -> None:
    await home.upload("contract a", [drawn("a.png")])
    await home.upload("contract b", [drawn("a.png")])
    assert (await home.delete("contract a")).images == 1
    assert await names(home) == ["contract_b"]
    with pytest.raises(NotFound) as caught:
        await home.delete("contract a")
    assert "contract_b" in caught.value.details["closest_matches"]


async def test_what_a_training_reads_is_not_changed(home: DatasetHome, users: Users) -> None:
    await home.upload(NAME, [drawn("a.png", "old"), drawn("b.png", "old")])
    users.job_ids = ["job-7"]
    changes = (
        home.upload(NAME, [drawn("a.png", "new")], overwrite=True),
        home.delete_images(NAME, ["a.png"]),
        home.delete(NAME),
    )
    for change in changes:
        with pytest.raises(Conflict, match="job-7"):
            await change
    assert await home.jobs_using(NAME) == ["job-7"]
    assert await captions(home) == {"a.png": "old", "b.png": "old"}


async def test_a_check_names_what_it_finds_as_it_was_sent(home: DatasetHome) -> None:
    await home.upload(NAME, [drawn("狗.png", "a dog"), drawn("猫.png", None), drawn("b.png", "b", colour="red")])
    found = await check_dataset(home, NAME, resolutions=[64], architecture="flux")
    assert (found.name, found.path, found.images, found.readable) == (FOLDER, home.root / FOLDER, 3, 3)
    kinds = {finding.kind: set(finding.filenames) for finding in found.findings}
    assert kinds["missing_caption"] == {"猫.png"}
    assert kinds["duplicate"] == {"狗.png", "猫.png"}


async def test_a_config_finds_a_dataset_by_its_name_and_by_its_path(home: DatasetHome) -> None:
    await home.upload(NAME, [drawn("a.png", "one"), drawn("b.png", "two"), drawn("c.png", None)])
    for given in (NAME, FOLDER, str(home.root / FOLDER)):
        found = await to_thread.run_sync(locate, home, given)
        assert (found.path, found.images, found.captions, found.is_ours) == (
            home.root / FOLDER,
            3,
            ("one", "two"),
            True,
        )
    with pytest.raises(NotFound) as caught:
        await to_thread.run_sync(locate, home, str(home.root / "contract_cat"))
    assert caught.value.details["closest_matches"] == [str(home.root / FOLDER)]
    with pytest.raises(ToolError, match=r"dataset_path|no folder"):
        await to_thread.run_sync(locate, home, str(Path("/nowhere/else")))
