"""Rules of the house that a machine can hold."""

import re
from pathlib import Path

import pytest

from aitk_mcp.settings import AitkSettings
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.settings import ServerSettings, settings_table

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 400
TOP_LEVEL = {
    *("aitk_mcp", "comfy_mcp", "docker", "docs", "scripts", "shared", "tests"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "pyproject.toml", "server.json"),
    *("requirements.lock", "requirements-dev.lock"),
}


def sources() -> list[Path]:
    """Return every Python file of the project."""
    return [
        path
        for folder in ("aitk_mcp", "comfy_mcp", "shared", "scripts", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]


def test_no_file_is_longer_than_its_noun() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_module_is_named_for_nothing() -> None:
    empty_names = re.compile(r"(utils?|helpers?|base|common|misc)\.py")
    assert [path for path in sources() if empty_names.fullmatch(path.name)] == []


def test_the_top_level_holds_what_it_should() -> None:
    shown = {
        path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__")) and path.suffix != ".egg-info"
    }
    assert shown - TOP_LEVEL - {"dist", "build", "out"} == set()


@pytest.mark.parametrize(("name", "settings"), [("comfy_mcp", ComfySettings), ("aitk_mcp", AitkSettings)])
def test_the_readme_tells_every_setting(name: str, settings: type[ServerSettings]) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    start = f"<!-- settings: {name} -->\n"
    shown = readme.partition(start)[2].partition("\n<!-- end -->")[0]
    assert shown == settings_table(settings), "run: python scripts/readme_tables.py"


def test_locks_carry_hashes_and_no_addresses() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text("utf-8")
        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")
