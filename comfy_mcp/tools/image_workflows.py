"""The tool that takes the graph out of a picture."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from anyio import to_thread
from pydantic import AliasChoices, Field

from comfy_mcp.image_texts import graphs_in
from comfy_mcp.images import Images
from comfy_mcp.workflows.mermaid import to_mermaid
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

MOST_IMAGE_BYTES = 64 * 1024 * 1024


class GetImageWorkflow(Arguments):
    """Take the graph out of a PNG that ComfyUI made: of a picture of a job (`image_id`), or of a file (`content`). It
    can be run again by execute-workflow, as it is or changed."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "filename": "the file's bytes are sent as `content`, in base64.",
        "job_id": "the argument is `image_id`, as a job's `images` have it.",
    }
    image_id: str | None = Field(None, description="id of a picture, as `images` of a job have it")
    content: str | None = Field(
        None, validation_alias=AliasChoices("content", "data"), description="a PNG file as base64"
    )


class ImageWorkflow(Result):
    """The graph of a picture."""

    workflow: dict[str, Any] | None = Field(description="the graph in API format, for execute-workflow")
    page_workflow: dict[str, Any] | None = Field(
        description="the graph as ComfyUI's page saves it, where the page made the picture; execute-workflow takes it "
        "too"
    )
    mermaid: str | None = Field(description="the graph as a Mermaid flow chart")


def image_workflow_tools(images: Images) -> list[AnyTool]:
    """Return the tool that takes the graph out of a picture."""

    async def recover(args: GetImageWorkflow, call: Call) -> ImageWorkflow:
        if (args.image_id is None) == (args.content is None):
            raise InvalidArguments(
                "One of `image_id` and `content` is needed, and not both.",
                hint="Send the id of a job's picture, or a PNG file as base64.",
                details={"fields": ["image_id", "content"]},
            )
        if args.image_id is not None:
            content = await images.content(args.image_id, MOST_IMAGE_BYTES)
        else:
            content = await to_thread.run_sync(
                partial(decode_base64, args.content or "", field="content", max_bytes=MOST_IMAGE_BYTES)
            )
        carried = await to_thread.run_sync(graphs_in, content)
        return ImageWorkflow(
            workflow=carried.graph,
            page_workflow=None if carried.page is None else dict(carried.page),
            mermaid=None if carried.graph is None else to_mermaid(carried.graph),
        )

    return [
        Tool(name="get-image-workflow", args=GetImageWorkflow, result=ImageWorkflow, effect=Effect.READ, run=recover)
    ]
