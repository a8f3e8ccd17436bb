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


def test_a_server_that_is_told_is_used_and_another_is_looked_for() -> None:
    told = settings(AITK_UI_URL="http://10.0.0.2:8675", AI_TOOLKIT_AUTH="s3cret", aitk_dir="/nowhere")
    assert (told.engine, told.looks_for_a_server) == ("ui", False)
    assert told.ui_token is not None
    assert "s3cret" not in repr(told)
    assert (settings(trainer="ui").engine, settings(trainer="ui").ui_url) == ("ui", None)
    assert settings(AITK_UI_URL="").looks_for_a_server
    assert not settings(AITK_UI_URL="http://10.0.0.2:8675", trainer="embedded").looks_for_a_server
    assert not settings(trainer="cli", aitk_dir="/nowhere").looks_for_a_server
