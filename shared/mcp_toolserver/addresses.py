"""Addresses of servers as people write them."""

from urllib.parse import urlsplit

import httpx

_DEFAULT_PORTS = {"http": 80, "https": 443}


def server_address(text: str) -> str:
    """Return an address in one spelling: with its scheme, without `/mcp`, a slash at the end and the default port.

    Raises ValueError, with an address that would do.
    """
    given = text.strip()
    url = given if "://" in given else f"http://{given}"
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in _DEFAULT_PORTS:
        raise ValueError(f"{text!r} does not begin with http:// or https://; `http://{rest}` does")
    host = rest.partition("/")[0].strip("[]").partition("]")[0]
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        name = f"[{host}]" if host.count(":") > 1 else host.partition(":")[0] or "127.0.0.1"
        raise ValueError(
            f"{text!r} is no address: `{scheme}://{name}:8189` would be one (ports go from 0 to 65535)"
        ) from None
    if not parts.hostname or not parts.netloc.isprintable() or " " in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no address of a server: `http://127.0.0.1:8189` is one")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    shown_port = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    path = parts.path.rstrip("/")
    for door in ("/mcp/tool", "/mcp"):
        path = path.removesuffix(door).rstrip("/")
    return f"{parts.scheme}://{user}{name}{shown_port}{path}"
