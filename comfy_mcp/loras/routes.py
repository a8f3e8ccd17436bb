"""The data plane of LoRAs: downloads of any size, by ranges."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.loras.remote import out_of_reach
from mcp_toolserver.files import ranged_file_response
from mcp_toolserver.ranges import wants_sha256


def lora_routes(library: LoraLibrary) -> list[Route]:
    """Return `GET` and `HEAD /loras/{name}`; the name may have sub-folders. Unknown names raise NotFound,
    and names on another machine Forbidden. A digest that nobody computed yet is computed for who asks for it by
    Want-Repr-Digest.
    """

    async def download(request: Request) -> Response:
        info = await library.info(request.path_params["name"], hashes=False)
        if info.path is not None and info.hashes is None and wants_sha256(request.headers):
            info = await library.info(info.name)
        if info.path is None:
            raise out_of_reach(info.name, "fetch")
        return await ranged_file_response(info.path, request, sha256=info.hashes.sha256 if info.hashes else None)

    return [Route("/loras/{name:path}", download, methods=["GET"])]
