"""Addresses as people write them."""

import pytest

from comfy_mcp.settings import ComfySettings
from mcp_toolserver.addresses import server_address


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:8190", "http://127.0.0.1:8190"),
        ("HTTP://LocalHost:80/", "http://localhost"),
        ("https://box.example:443/mcp", "https://box.example"),
        ("http://box.example/aitk/mcp/tool/", "http://box.example/aitk"),
        ("HTTP://[::1]:8190/mcp/tool", "http://[::1]:8190"),
        (" http://Me:Word@here:80 ", "http://Me:Word@here"),
    ],
)
def test_one_server_has_one_address(written: str, address: str) -> None:
    assert server_address(written) == server_address(address) == address


@pytest.mark.parametrize(
    ("written", "better"),
    [
        ("ftp://box.example", "`http://box.example` does"),
        ("http://[::1", "`http://[::1]:8189`"),
        ("http://box.example:99999", "`http://box.example:8189`"),
        ("http://127.0.0.1:abc", "`http://127.0.0.1:8189`"),
        ("http://", "`http://127.0.0.1:8189`"),
        ("http://a host", "`http://127.0.0.1:8189`"),
        ("http://host/?token=x", "`http://127.0.0.1:8189`"),
    ],
)
def test_what_is_no_address_is_told_one_that_would_do(written: str, better: str) -> None:
    with pytest.raises(ValueError, match=r"does not begin|is no address") as refused:
        server_address(written)
    assert better in str(refused.value)


def test_the_settings_take_the_address_that_an_mcp_client_has() -> None:
    settings = ComfySettings(aitk_url="localhost:8190/mcp", comfyui_api_url="")
    assert (settings.aitk_url, settings.comfyui_api_url) == ("http://localhost:8190", None)
