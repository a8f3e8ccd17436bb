"""The data plane of LoRAs: downloads of any size, by ranges."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comfy_mcp.loras.library import LoraLibrary
from mcp_toolserver.files import ranged_file_response


def lora_routes(library: LoraLibrary) -> list[Route]:
    """Return `GET` and `HEAD /loras/{name}`; the name may have sub-folders. Unknown names raise NotFound."""

    async def download(request: Request) -> Response:
        info = await library.info(request.path_params["name"], hashes=False)
        return await ranged_file_response(info.path, request, sha256=info.hashes.sha256 if info.hashes else None)

    return [Route("/loras/{name:path}", download, methods=["GET"])]
