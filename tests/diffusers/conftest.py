"""Tiny models of every family, made once."""

import os
from collections.abc import Callable

import pytest

from comfy_mcp.engines.diffusers_models import DiffusersModel, models_in
from tests.diffusers.tiny_models import make_model

# More threads than that cost these models more than they bring. It is read when torch is imported, here and in servers.
os.environ["OMP_NUM_THREADS"] = "1"

TinyModel = Callable[[str], DiffusersModel]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Give a function that returns the model of a family (sd15, sdxl, flux), each in a folder of models of its own."""
    made: dict[str, DiffusersModel] = {}

    def model(family: str) -> DiffusersModel:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            make_model(family, folder / f"tiny-{family}")
            [made[family]] = models_in([folder])
        return made[family]

    return model
