"""What every server is told from outside, and the log that it writes."""

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")

_PLAIN_LOG_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class ServerSettings(BaseSettings):
    """Settings that both servers share; a subclass gives the prefix and the port."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    host: str = Field(default="127.0.0.1", description="address to listen on; anything but loopback needs a token")
    port: int = Field(default=0, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    token: SecretStr | None = Field(default=None, description="bearer token that every request must carry")
    data_dir: Path = Field(default=Path.home() / ".loraloop", description="folder for everything this server keeps")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="further Host names to answer to, comma-separated (loopback names always count)"
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="web origins (`https://app.example`) whose pages may call and read the answers, comma-separated",
    )
    public_url: str | None = Field(
        default=None, description="address of this server as callers see it, for links in results"
    )
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=65536, description="largest request body in bytes")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe log line written"
    )

    @field_validator("allowed_hosts", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, (part.strip(" /") for part in value.split(",")))) if isinstance(value, str) else value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()


class JsonLines(logging.Formatter):
    """Write a record as one JSON object: time (UTC), level, logger, message, and whatever `extra` brought."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _PLAIN_LOG_FIELDS})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def problems_of(error: ValidationError) -> str:
    """Return what is wrong with settings, each problem with the variable or option that it came by."""
    return "; ".join(
        ": ".join([*(str(part) for part in problem["loc"][:1]), problem["msg"].removeprefix("Value error, ")])
        for problem in error.errors()
    )


def configure_logging(level: str, quiet: Sequence[str] = ("mcp", "httpx", "httpcore", "PIL", "websockets")) -> None:
    """Send every log line to stderr as JSON; libraries named in `quiet` speak from `warning` up.

    Call this before the MCP SDK is imported: with `rich` installed it would otherwise set up its own handler.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in quiet:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def settings_table(settings: type[ServerSettings]) -> str:
    """Return the Markdown table of a settings class: variable, default, meaning."""
    prefix = settings.model_config.get("env_prefix", "")
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        names = [str(choice) for choice in getattr(alias, "choices", [])] or ([alias] if isinstance(alias, str) else [])
        variable = ", ".join(f"`{item.upper()}`" for item in names) or f"`{prefix}{name.upper()}`"
        default = field.default
        shown = "" if default is None or default == () else str(default).replace(str(Path.home()), "~")
        rows.append(f"| {variable} | {f'`{shown}`' if shown else ''} | {field.description or ''} |")
    return "\n".join(rows)
