"""The data plane of models: downloads of any size, by ranges."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aitk_mcp.models.models import Model, Models
from aitk_mcp.models.remote import RemoteModels
from mcp_toolserver.errors import NotFound
from mcp_toolserver.files import ranged_file_response


def model_routes(models: Models) -> list[Route]:
    """Return `GET` and `HEAD /models/{path}`, relative to the outputs folder. Unknown paths raise NotFound."""

    async def download(request: Request) -> Response:
        model = await models.find(request.path_params["path"])
        try:
            return await ranged_file_response(model.path, request, sha256=model.sha256)
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
