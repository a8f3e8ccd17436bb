"""What comfy_mcp is told from outside."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from mcp_toolserver.addresses import server_address
from mcp_toolserver.settings import ServerSettings

DEFAULT_COMFYUI_URL = "http://127.0.0.1:8188"
DEFAULT_AITK_URL = "http://127.0.0.1:8190"


class ComfySettings(ServerSettings):
    """Settings of comfy_mcp; the names without prefix are those that people already use for ComfyUI."""

    model_config = SettingsConfigDict(env_prefix="COMFY_MCP_")

    port: int = Field(default=8189, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data_dir: Path = Field(
        default=Path.home() / ".loraloop" / "comfy", description="folder for everything this server keeps"
    )
    backend: Literal["auto", "comfyui", "embedded"] = Field(
        default="auto",
        description="what renders; `auto` is ComfyUI where it is configured or answers at its default address, else "
        "the embedded engine",
    )
    comfyui_api_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("COMFYUI_API_URL", "COMFY_MCP_COMFYUI_API_URL"),
        description=f"address of ComfyUI ({DEFAULT_COMFYUI_URL} where only its folder is given)",
    )
    comfyui_dir: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("COMFYUI_DIR", "COMFY_MCP_COMFYUI_DIR"),
        description="folder of ComfyUI on this machine, which LoRAs are written to",
    )
    diffusers_dir: Path | None = Field(
        default=None,
        description="folder of the models that diffusers renders with while ComfyUI does not answer; where it is left "
        "out, diffusers/models in the data folder, and models/diffusers of ComfyUI",
    )
    enable_cloud_apis: bool = Field(
        default=False,
        validation_alias=AliasChoices("ENABLE_CLOUD_APIS", "COMFY_MCP_ENABLE_CLOUD_APIS"),
        description="must stay false: nothing here ever calls a cloud",
    )
    lost_after_s: float = Field(
        default=60.0,
        gt=0,
        description="seconds that an unfinished job waits for a ComfyUI that does not answer any more",
    )

    aitk_url: str | None = Field(
        default=None,
        description=f"address of the aitk_mcp that import-lora brings models from; where it is left out, the one at "
        f"{DEFAULT_AITK_URL}, if one answers there",
    )
    aitk_token: SecretStr | None = Field(default=None, description="token of that aitk_mcp")
    aitk_connections: int = Field(
        default=1,
        ge=1,
        le=8,
        description="connections that import-lora fetches a model by; more than one is faster only over a network that "
        "slows each of them",
    )
    download_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="hosts that models may be downloaded from, comma-separated; `.example.org` has all below it, and a "
        "host that redirects needs those that it leads to",
    )
    max_download_bytes: int = Field(
        default=64 * 1024**3, ge=1, description="largest model that is downloaded, in bytes"
    )

    @field_validator("enable_cloud_apis")
    @classmethod
    def _is_off(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "there is no cloud to enable: pictures are rendered by ComfyUI or on this machine alone; leave it out"
            )
        return value

    @field_validator("download_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("comfyui_api_url", "aitk_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return server_address(value) if value else None

    @field_validator("aitk_token", mode="before")
    @classmethod
    def _is_told(cls, value: object) -> object:
        return value or None

    @field_validator("comfyui_dir", "diffusers_dir", mode="before")
    @classmethod
    def _is_folder(cls, value: object) -> object:
        return Path(value).expanduser().absolute() if value and isinstance(value, str | Path) else None
