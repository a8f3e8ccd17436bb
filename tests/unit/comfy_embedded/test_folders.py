"""Which files a folder lists, and which names lead to them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comfy_mcp.embedded.folders import Folders, is_inside, split_annotation
from comfy_mcp.embedded.weights import CHECKPOINT, PARTS, place_weights
from tinyflux import weights_path


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path)
    folders.create()
    return folders


def test_models_are_listed_by_extension_alone(folders: Folders) -> None:
    loras = folders.root / "models" / "loras"
    for name in (
        "a.safetensors", "UPPER.SAFETENSORS", "b.pt", ".hidden.safetensors", ".dot/h.safetensors",
        "flux/people/p.safetensors", "part.safetensors.part", "notes.txt", "t.tmp",
    ):  # fmt: skip
        (loras / name).parent.mkdir(parents=True, exist_ok=True)
        (loras / name).touch()
    (loras / "broken.safetensors").symlink_to("gone")
    (loras / "loop").symlink_to(loras)
    (folders.root / "output" / "loras").mkdir()
    (folders.root / "output" / "loras" / "uploaded.safetensors").touch()
    assert folders.model_names("loras") == [
        ".dot/h.safetensors",
        ".hidden.safetensors",
        "UPPER.SAFETENSORS",
        "a.safetensors",
        "b.pt",
        "broken.safetensors",
        "flux/people/p.safetensors",
        "uploaded.safetensors",
    ]


def test_a_listed_model_is_found_and_a_broken_link_is_not(folders: Folders) -> None:
    path = folders.root / "models" / "loras" / "a.safetensors"
    path.touch()
    path.with_name("broken.safetensors").symlink_to("gone")
    assert folders.find_model("loras", "a.safetensors") == path
    for name in ("broken.safetensors", "../checkpoints/x.safetensors"):
        with pytest.raises(FileNotFoundError, match="Model in folder 'loras' with filename"):
            folders.find_model("loras", name)


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [
        ("a.png", ("a.png", "input")),
        ("sub/a.png", ("sub/a.png", "input")),
        ("a.png [output]", ("a.png", "output")),
        ("a b.png [temp] ", ("a b.png", "temp")),
        ("a.png [elsewhere]", ("a.png [elsewhere]", "input")),
    ],
)
def test_annotations_name_a_folder(annotated: str, expected: tuple[str, str]) -> None:
    assert split_annotation(annotated, "input") == expected


def test_pictures_are_found_inside_their_folder_only(folders: Folders) -> None:
    (folders.root / "output" / "x.png").touch()
    (folders.root / "input" / "a.png").touch()
    (folders.root / "input" / "notes.txt").touch()
    assert folders.input_pictures() == ["a.png"]
    assert folders.find_picture("x.png [output]") == folders.root / "output" / "x.png"
    assert folders.find_picture("../output/x.png") is None
    assert folders.find_picture("x.png") is None


def test_inside_goes_by_whole_names(tmp_path: Path) -> None:
    assert is_inside(tmp_path / "a" / ".." / "b", tmp_path)
    assert not is_inside(tmp_path.with_name(f"{tmp_path.name}-other"), tmp_path)


def test_weights_are_placed_once_and_replaced_when_they_differ(folders: Folders) -> None:
    place_weights(folders)
    checkpoint = folders.root / CHECKPOINT
    before = checkpoint.stat()
    place_weights(folders)
    assert checkpoint.stat().st_mtime_ns == before.st_mtime_ns
    checkpoint.unlink()
    checkpoint.write_bytes(b"of an older package")
    place_weights(folders)
    for name in (CHECKPOINT, *PARTS):
        assert (folders.root / name).read_bytes() == weights_path().read_bytes()
    assert not weights_path().samefile(checkpoint)
    assert list(folders.root.rglob("*.part")) == []


def test_weights_are_placed_by_several_servers_at_once(folders: Folders) -> None:
    with ThreadPoolExecutor(8) as servers:
        for placing in [servers.submit(place_weights, folders) for _ in range(8)]:
            placing.result()
    for name in (CHECKPOINT, *PARTS):
        assert (folders.root / name).read_bytes() == weights_path().read_bytes()
    assert list(folders.root.rglob("*.part")) == []
