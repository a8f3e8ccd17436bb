"""import-lora by URL: only https, only listed hosts, no other host behind a redirect, nothing on this network."""

from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from mcp_toolserver.errors import Conflict, Forbidden, InvalidArguments
from mcp_toolserver.files import ranged_file_response
from mcp_toolserver.outbound import OutboundPolicy
from tests.servers.comfy_tools import EngineUnderTest, engine_process
from tests.servers.importing import Pair, Serve, in_one_task, lora_bytes, pair_of, sha256

LORA = lora_bytes(200_000)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineUnderTest]:
    with engine_process(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def site(folder: Path, leads_to: Callable[[], str]) -> Starlette:
    """Return a site with a LoRA, and with redirects to it and away."""

    async def file(request: Request) -> Response:
        return await ranged_file_response(folder / "lora.safetensors", request)

    async def moved(request: Request) -> Response:
        return RedirectResponse("/lora.safetensors")

    async def away(request: Request) -> Response:
        return RedirectResponse(leads_to())

    return Starlette(
        routes=[Route("/lora.safetensors", file), Route("/moved.safetensors", moved), Route("/away.safetensors", away)]
    )


@pytest.fixture
async def pair(tmp_path: Path, serve: Serve, engine: EngineUnderTest) -> AsyncGenerator[tuple[Pair, str]]:
    """Run imports that may fetch from one site on this machine under two names, as no server's settings allow."""
    (tmp_path / "lora.safetensors").write_bytes(LORA)
    url = serve(site(tmp_path, lambda: f"{url.replace('127.0.0.1', 'localhost')}/lora.safetensors"))
    port = url.rpartition(":")[2]
    policy = OutboundPolicy(
        hosts=(f"127.0.0.1:{port}", f"localhost:{port}"),
        schemes=frozenset({"http"}),
        private_addresses=True,
        same_host=True,
    )
    async with in_one_task(pair_of(tmp_path, serve, policy=policy, comfyui_url=engine.url)) as running:
        yield running, url


@pytest.mark.parametrize("name", ["lora", "moved"])
async def test_a_file_of_the_web_arrives(pair: tuple[Pair, str], name: str) -> None:
    running, url = pair
    result = await running.bring(url=f"{url}/{name}.safetensors", filename="web.safetensors")
    assert (result["status"], result["method"], result["filename"]) == ("completed", "download", "web.safetensors")
    assert (running.loras / "web.safetensors").read_bytes() == LORA
    assert result["lora"]["sha256"] == result["sha256"]
    assert result["checksum_verified"] is False
    assert result["upload_id"] is None


async def test_a_digest_is_compared_before_the_file_is_seen(pair: tuple[Pair, str]) -> None:
    running, url = pair
    with pytest.raises(Conflict, match="another sha256") as caught:
        await running.bring(url=f"{url}/lora.safetensors", sha256="00" * 32)
    assert caught.value.details["actual_sha256"] == sha256(LORA)
    assert list(running.loras.glob("*.safetensors")) == []
    assert running.leftovers() == []
    told = await running.bring(url=f"{url}/lora.safetensors", sha256=sha256(LORA).upper())
    assert (told["status"], told["checksum_verified"], told["sha256"]) == ("completed", True, sha256(LORA))


async def test_a_redirect_to_another_host_is_not_followed_even_to_a_listed_one(pair: tuple[Pair, str]) -> None:
    running, url = pair
    with pytest.raises(Forbidden, match="redirects to another host") as caught:
        await running.bring(url=f"{url}/away.safetensors")
    assert caught.value.details["host"] == "localhost"
    assert list(running.loras.glob("*.safetensors")) == []


async def test_a_name_that_is_taken_is_refused(pair: tuple[Pair, str]) -> None:
    running, url = pair
    (running.loras / "lora.safetensors").write_bytes(lora_bytes(1000))
    with pytest.raises(Conflict, match="exists already"):
        await running.bring(url=f"{url}/lora.safetensors")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://example.org/a.safetensors", InvalidArguments),
        ("ftp://example.org/a.safetensors", InvalidArguments),
        ("https://user:word@example.org/a.safetensors", InvalidArguments),
        ("https://example.org/a.safetensors", Forbidden),
        ("https://listed.example.org/a.bin", InvalidArguments),
        ("https://127.0.0.1/a.safetensors", Forbidden),
        ("file:///etc/passwd", InvalidArguments),
        ("nonsense", InvalidArguments),
        ("http://[::1", InvalidArguments),
        ("https://xn--/x", InvalidArguments),
    ],
)
async def test_what_a_server_may_not_fetch_is_refused_by_name(
    tmp_path: Path, serve: Serve, engine: EngineUnderTest, url: str, error: type[Exception]
) -> None:
    policy = OutboundPolicy(hosts=("listed.example.org", "127.0.0.1"), setting="COMFY_MCP_DOWNLOAD_HOSTS")
    async with pair_of(tmp_path, serve, policy=policy, comfyui_url=engine.url) as running:
        with pytest.raises(error):
            await running.bring(url=url)
        assert list(running.loras.glob("*.safetensors")) == []
