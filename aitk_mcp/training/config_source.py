"""What trainings need of configs: to find one by name, and to know what is wrong with it now."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from aitk_mcp.documents import TrainingDocument
from aitk_mcp.recipes.problems import Problem


class StoredConfig(Protocol):
    """A config that the user created."""

    @property
    def name(self) -> str:
        """Return its name."""
        ...

    @property
    def path(self) -> Path:
        """Return the file that the trainer reads."""
        ...

    @property
    def training(self) -> TrainingDocument:
        """Return what the file says, with its placeholders filled in."""
        ...


class Verdict(Protocol):
    """What was found about a config."""

    @property
    def problems(self) -> Sequence[Problem]:
        """Return errors, which would make the training fail, and warnings."""
        ...


class ConfigSource(Protocol):
    """Where configs are found by name."""

    async def get(self, name: str) -> StoredConfig:
        """Return a config; raise NotFound with the closest names."""
        ...

    async def check_stored(self, name: str) -> Verdict:
        """Say what is wrong with a config as it is now."""
        ...
