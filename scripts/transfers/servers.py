"""The two servers as the command line names them: their tokens, and whose refusal it is."""

from collections.abc import Mapping
from typing import Any, Literal

from mcp_toolserver.client import ToolClient
from mcp_toolserver.errors import BackendRejected, InvalidArguments, Unauthorized, UnknownTool

_FLAGS = {"aitk_mcp": "--aitk", "comfy_mcp": "--comfy"}


def token(*given: tuple[str, str | None]) -> str | None:
    """Return the first token that is given, each with what gave it; raises Unauthorized for one that none can be."""
    source, found = next(((source, value) for source, value in given if value), ("", None))
    wrong = next((letter for letter in found or "" if not "!" <= letter <= "~"), None)
    if wrong is not None:
        raise Unauthorized(
            f"The token of {source} holds {wrong!a}, and no request can carry that.",
            hint="Give it as the server was started with it: letters, digits and signs of ASCII, without blanks.",
            details={"field": source},
        )
    return found


class Server(ToolClient):
    """A ToolClient of the server `name`, whose refusals say which server it was, and by which flag it is given."""

    def __init__(self, name: Literal["aitk_mcp", "comfy_mcp"], base_url: str, token: str | None) -> None:
        super().__init__(base_url, token)
        self._name = name

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a tool; raises InvalidArguments where another server than the one that is meant answers."""
        try:
            return await super().call(tool, arguments)
        except Unauthorized as error:
            flag = f"{_FLAGS[self._name]}-token"
            raise Unauthorized(
                f"{self._name} at {self.base_url}: {error.message}",
                hint=f"Give the token that it was started with by {flag} ({self._name.upper()}_TOKEN).",
                details={**error.details, "url": self.base_url, "field": flag},
            ) from error
        except (UnknownTool, InvalidArguments):
            # Some tools of both have one name.
            await self._require_meant()
            raise

    async def _require_meant(self) -> None:
        try:
            told = (await self.version())["server"]
        except BackendRejected:
            return
        if told != self._name:
            flag = f"{_FLAGS[self._name]}-url"
            raise InvalidArguments(
                f"What answers at {self.base_url} is {told}, and no {self._name}.",
                hint=f"Give the address of {self._name} by {flag}"
                + (" (are --aitk-url and --comfy-url swapped?)." if told in _FLAGS else "."),
                details={"field": flag, "value": self.base_url, "server": told},
            )
