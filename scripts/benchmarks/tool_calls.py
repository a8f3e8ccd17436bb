"""Call tools over REST, in the way that every row does it."""

from typing import Any

import httpx
import orjson


async def call(client: httpx.AsyncClient, url: str, tool: str, arguments: dict[str, Any]) -> Any:
    """Call a tool over REST; raises RuntimeError with the server's words when it refuses."""
    answer = await client.post(f"{url}/mcp/tool", content=orjson.dumps({"tool": tool, "arguments": arguments}))
    body: Any = answer.json()
    if not body["success"]:
        raise RuntimeError(body["error"]["message"])
    return body["result"]
