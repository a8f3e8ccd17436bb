"""What aitk_mcp is told from outside."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from mcp_toolserver.addresses import server_address
from mcp_toolserver.settings import ServerSettings


class AitkSettings(ServerSettings):
    """Settings of aitk_mcp; AITK_DIR is the name that people already use for AI Toolkit's checkout."""

    model_config = SettingsConfigDict(env_prefix="AITK_MCP_")

    port: int = Field(default=8190, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: Path = Field(
        default=Path.home() / ".loraloop" / "aitk", description="folder for everything this server keeps"
    )
    # Datasets travel as base64 in one call, since it is all or nothing.
    max_body_bytes: int = Field(default=128 * 1024 * 1024, ge=65536, description="largest request body in bytes")
    trainer: Literal["auto", "ui", "cli", "embedded"] = Field(
        default="auto",
        description="what trains; `auto` is AI Toolkit's server where AITK_UI_URL is set or it answers at its default"
        " address, else its command line where AITK_DIR is set, else the embedded engine",
    )
    ui_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("AITK_UI_URL", "AITK_MCP_UI_URL"),
        description="address of AI Toolkit's own server (http://127.0.0.1:8675 is its default)",
    )
    ui_token: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("AI_TOOLKIT_AUTH", "AITK_MCP_UI_TOKEN"),
        description="token that AI Toolkit's server was started with",
    )
    ui_disk: Literal["auto", "shared", "remote"] = Field(
        default="auto",
        description="whether AI Toolkit's server and this one see the same folders under the same paths; `auto` tries"
        " it, `remote` does everything through the API",
    )
    aitk_dir: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("AITK_DIR", "AITK_MCP_AITK_DIR"),
        description="checkout of AI Toolkit on this machine, which holds run.py",
    )
    aitk_python: Path | None = Field(
        default=None, description="Python that runs AI Toolkit; that of the checkout's venv where it is left out"
    )
    datasets_dir: Path | None = Field(
        default=None, description="folder of the datasets; `datasets` in the checkout or data_dir"
    )
    outputs_dir: Path | None = Field(
        default=None, description="folder of the trained models; `output` in the checkout or data_dir"
    )
    import_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="folders that import-dataset may take zips and folders from, comma-separated"
    )
    gpu_ids: str = Field(
        default="0", description="GPU that trains where start-training names none, such as `0` or `0,1`"
    )

    @field_validator("aitk_dir", "aitk_python", "datasets_dir", "outputs_dir", mode="before")
    @classmethod
    def _is_path(cls, value: object) -> object:
        return Path(value).expanduser().absolute() if value and isinstance(value, str | Path) else None

    @field_validator("ui_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return server_address(value) if value else None

    @field_validator("ui_token", mode="before")
    @classmethod
    def _is_told(cls, value: object) -> object:
        return value or None

    @field_validator("import_roots", mode="before")
    @classmethod
    def _are_paths(cls, value: object) -> object:
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return parts
        return tuple(Path(str(part)).expanduser().absolute() for part in cast(Sequence[object], parts))

    @model_validator(mode="after")
    def _cli_needs_a_checkout(self) -> Self:
        if self.trainer == "cli" and self.aitk_dir is None:
            raise ValueError("trainer `cli` needs AITK_DIR, the folder that holds AI Toolkit's run.py")
        return self

    @property
    def engine(self) -> Literal["ui", "cli", "embedded"]:
        """Return what trains unless a server is found by chance: what is configured is never replaced."""
        if self.trainer != "auto":
            return self.trainer
        if self.ui_url is not None:
            return "ui"
        return "cli" if self.aitk_dir is not None else "embedded"

    @property
    def looks_for_a_server(self) -> bool:
        """Tell whether AI Toolkit's server trains if it answers at its default address."""
        return self.trainer == "auto" and self.ui_url is None

    @property
    def trainer_root(self) -> Path:
        """Return the folder in which the trainer keeps datasets and outputs where nothing else is set."""
        return self.aitk_dir if self.engine == "cli" and self.aitk_dir is not None else self.data_dir

    @property
    def datasets_folder(self) -> Path:
        """Return the folder of the datasets."""
        return self.datasets_dir or self.trainer_root / "datasets"

    @property
    def outputs_folder(self) -> Path:
        """Return the folder of the trained models."""
        return self.outputs_dir or self.trainer_root / "output"
