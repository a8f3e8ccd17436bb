"""The data plane of models: downloads of any size, by ranges."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aitk_mcp.models.models import Model, Models
from aitk_mcp.models.remote import RemoteModels
from mcp_toolserver.errors import NotFound
from mcp_toolserver.files import ranged_file_response
from mcp_toolserver.ranges import wants_sha256


def model_routes(models: Models) -> list[Route]:
    """Return `GET` and `HEAD /models/{path}`, relative to the outputs folder. Unknown paths raise NotFound.

    A digest that nobody computed yet is computed for who asks for it by Want-Repr-Digest.
    """

    async def download(request: Request) -> Response:
        model = await models.find(request.path_params["path"])
        try:
            known = model.sha256 or (await models.sha256(model) if wants_sha256(request.headers) else None)
            return await ranged_file_response(model.path, request, sha256=known)
        except FileNotFoundError:
            raise _deleted(model) from None

    return [Route("/models/{path:path}", download, methods=["GET"])]


def remote_model_routes(models: RemoteModels) -> list[Route]:
    """Return the same routes over LoRAs on AI Toolkit's disk, which pass through."""

    async def download(request: Request) -> Response:
        model = await models.find(request.path_params["path"])
        try:
            return await models.answer(model, request)
        except FileNotFoundError:
            raise _deleted(model) from None

    return [Route("/models/{path:path}", download, methods=["GET"])]


def _deleted(model: Model) -> NotFound:
    return NotFound(
        f"`{model.model_path}` was deleted at this moment, probably by the trainer.",
        hint="list-exported-models shows what is there now.",
    )
