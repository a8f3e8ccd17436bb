"""Which trainer the settings choose, and where its folders lie."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aitk_mcp.settings import AitkSettings


def settings(**given: Any) -> AitkSettings:
    return AitkSettings.model_validate({"data_dir": "/data", **given})


def test_without_a_checkout_the_embedded_engine_trains() -> None:
    chosen = settings()
    assert chosen.engine == "embedded"
    assert (chosen.datasets_folder, chosen.outputs_folder) == (Path("/data/datasets"), Path("/data/output"))


def test_a_checkout_is_used_where_it_is_configured_even_if_it_is_broken() -> None:
    chosen = settings(aitk_dir="/nowhere/ai-toolkit")
    assert chosen.engine == "cli"
    assert chosen.datasets_folder == Path("/nowhere/ai-toolkit/datasets")
    assert settings(aitk_dir="/nowhere/ai-toolkit", trainer="embedded").datasets_folder == Path("/data/datasets")
    assert settings(aitk_dir="/nowhere", outputs_dir="/big/output").outputs_folder == Path("/big/output")


def test_the_command_line_needs_a_checkout() -> None:
    with pytest.raises(ValidationError, match="needs AITK_DIR"):
        settings(trainer="cli")
    assert settings(aitk_dir="").engine == "embedded"
