"""Files from the world outside: where they may come from, and how they come whole."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_toolserver.errors import (
    BackendRejected,
    BackendUnavailable,
    Forbidden,
    InvalidArguments,
    NotFound,
    TooLarge,
    ToolError,
)
from mcp_toolserver.files import ranged_file_response
from mcp_toolserver.outbound import Outbound, OutboundPolicy, is_public
from mcp_toolserver.retries import Patience

Serve = Callable[[ASGIApp], str]
CONTENT = bytes(range(256)) * 12_000
QUICK = Patience(retries=2, first_wait_s=0.01, longest_wait_s=0.01)


@dataclass(slots=True)
class Site:
    """A site of files: `breaks_after` cuts the next answer to /file off, `status` is what /status answers."""

    file: Path
    breaks_after: int | None = None
    ranges: list[str | None] = field(default_factory=list[str | None])
    leads_to: str = ""

    def app(self) -> Starlette:
        """Return the server."""
        return Starlette(
            routes=[
                Route("/file", _Cut(self)),
                Route("/moved", self._moved),
                Route("/circle", self._circle),
                Route("/status/{status:int}", self._status),
                Route("/compressed", self._compressed),
            ]
        )

    def _moved(self, request: Request) -> Response:
        return RedirectResponse(self.leads_to or "/file")

    def _circle(self, request: Request) -> Response:
        return RedirectResponse("/circle")

    def _compressed(self, request: Request) -> Response:
        return Response(CONTENT, headers={"content-encoding": "gzip"})

    def _status(self, request: Request) -> Response:
        return PlainTextResponse("no", request.path_params["status"])


class _Cut:
    """Send a file with ranges, and break off in the middle where that is wished."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self._site.ranges.append(request.headers.get("range"))
        response = await ranged_file_response(self._site.file, request)
        limit, self._site.breaks_after = self._site.breaks_after, None
        if limit is None:
            await response(scope, receive, send)
            return
        left = limit

        async def until_then(message: Message) -> None:
            nonlocal left
            body = message.get("body", b"")[:left]
            left -= len(body)
            await send({**message, "body": body} if "body" in message else message)
            if left == 0:
                raise ConnectionAbortedError("here it breaks")

        # Without what the server offers beside, so that the bytes come by here.
        await response({**scope, "extensions": {}}, receive, until_then)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a site with one file."""
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return Site(file)


def open_to(*urls: str, max_bytes: int = 10_000_000) -> OutboundPolicy:
    """Return a policy that allows sites on this machine, as no server's settings do."""
    return OutboundPolicy(
        hosts=tuple(urlsplit(url).netloc for url in urls),
        schemes=frozenset({"http", "https"}),
        private_addresses=True,
        max_bytes=max_bytes,
    )


async def refusal(policy: OutboundPolicy, url: str, part: Path) -> ToolError:
    """Return what a fetch raises; nothing may have been written."""
    with pytest.raises(ToolError) as caught:
        await Outbound(policy, patience=QUICK).fetch(url, part)
    assert not part.exists()
    return caught.value


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("https://example.org/a.safetensors", Forbidden, "no host at all"),
        ("http://example.org/a.safetensors", InvalidArguments, "only https"),
        ("file:///etc/passwd", InvalidArguments, "only https"),
        ("ftp://example.org/a", InvalidArguments, "only https"),
        ("example.org/a", InvalidArguments, "nothing"),
        ("https://user:secret@example.org/a", InvalidArguments, "password"),
        ("https:///a", InvalidArguments, "no host"),
        ("https://[::1/a", InvalidArguments, "cannot be read"),
        ("http://[::1", InvalidArguments, "cannot be read"),
        ("https://xn--/a", InvalidArguments, "cannot be read"),
        ("https://example.org:99999/a", InvalidArguments, "ports are 1 to 65535"),
        ("https://127.0.0.1/a", Forbidden, "no host at all"),
    ],
)
async def test_the_policy_as_it_stands_fetches_from_nowhere(
    url: str, kind: type[ToolError], said: str, tmp_path: Path
) -> None:
    refused = await refusal(OutboundPolicy(setting="SOME_SETTING"), url, tmp_path / "part")
    assert isinstance(refused, kind)
    assert said in refused.message
    assert "secret" not in str(refused.hint)


@pytest.mark.parametrize(
    ("entry", "url", "listed"),
    [
        ("example.org", "https://example.org/a", True),
        ("example.org", "https://EXAMPLE.org:443/a", True),
        ("example.org", "https://example.org./a", True),
        ("example.org", "https://example.org:8443/a", False),
        ("example.org", "https://sub.example.org/a", False),
        ("example.org", "https://notexample.org/a", False),
        ("example.org", "https://example.org.evil.test/a", False),
        (".example.org", "https://a.b.example.org/a", True),
        (".example.org", "https://example.org/a", True),
        (".example.org", "https://notexample.org/a", False),
        ("example.org:8443", "https://example.org:8443/a", True),
        ("example.org:8443", "https://example.org/a", False),
    ],
)
def test_hosts_are_whole_names_with_their_ports(entry: str, url: str, listed: bool) -> None:
    policy = OutboundPolicy(hosts=(entry,))
    if listed:
        assert policy.check(url)
    else:
        with pytest.raises(Forbidden):
            policy.check(url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "[fe80::1]"])
async def test_a_listed_name_that_leads_inside_is_refused_too(host: str, tmp_path: Path) -> None:
    refused = await refusal(OutboundPolicy(hosts=(host,)), f"https://{host}/a", tmp_path / "part")
    assert isinstance(refused, Forbidden)
    assert "not of the open internet" in refused.message


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07::1", True),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("2002:7f00:1::", False),
        ("fec0::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
    ],
)
def test_what_an_address_of_the_open_internet_is(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


async def test_a_file_comes_whole_and_reports_on_its_way(site: Site, serve: Serve, tmp_path: Path) -> None:
    url, part, heard = serve(site.app()), tmp_path / "part", list[tuple[float, float | None]]()

    async def report(done: float, /, total: float | None = None, message: str | None = None) -> None:
        heard.append((done, total))
        assert (await anyio.Path(part).stat()).st_size == done

    received = await Outbound(open_to(url)).fetch(f"{url}/moved", part, report=report)
    assert part.read_bytes() == CONTENT
    assert (received.size_bytes, received.received_bytes) == (len(CONTENT), len(CONTENT))
    assert (heard[0], heard[-1]) == ((0, len(CONTENT)), (len(CONTENT), len(CONTENT)))


async def test_a_broken_connection_goes_on_where_it_broke(site: Site, serve: Serve, tmp_path: Path) -> None:
    url, part = serve(site.app()), tmp_path / "part"
    site.breaks_after = 1_000_000
    await Outbound(open_to(url), patience=QUICK).fetch(f"{url}/file", part)
    assert part.read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=1000000-"]


async def test_what_another_process_left_is_not_fetched_again(site: Site, serve: Serve, tmp_path: Path) -> None:
    url, part = serve(site.app()), tmp_path / "part"
    site.breaks_after = 2_000_000
    with pytest.raises(BackendUnavailable) as broken:
        await Outbound(open_to(url), patience=replace(QUICK, retries=0)).fetch(f"{url}/file", part)
    assert broken.value.retryable
    received = await Outbound(open_to(url)).fetch(f"{url}/file", part)
    assert received.received_bytes == len(CONTENT) - 2_000_000
    # And once more, when there is nothing left to come.
    assert (await Outbound(open_to(url)).fetch(f"{url}/file", part)).received_bytes == 0
    assert part.read_bytes() == CONTENT


async def test_a_file_that_is_another_by_now_comes_anew(site: Site, serve: Serve, tmp_path: Path) -> None:
    url, part = serve(site.app()), tmp_path / "part"
    site.breaks_after = 2_000_000
    with pytest.raises(BackendUnavailable):
        await Outbound(open_to(url), patience=replace(QUICK, retries=0)).fetch(f"{url}/file", part)
    newer = tmp_path / "newer"
    newer.write_bytes(CONTENT[::-1])
    newer.replace(site.file)
    await Outbound(open_to(url)).fetch(f"{url}/file", part)
    assert part.read_bytes() == CONTENT[::-1]


@dataclass(slots=True)
class Careless:
    """Serve `content` with `headers`, and what is asked for of it, `If-Range` or not, `most` bytes at a time.

    Once `breaks_after` bytes of an answer were sent, it breaks off and the file is `next`, with `next_headers`.
    """

    content: bytes
    headers: dict[str, str]
    next_headers: dict[str, str]
    next: bytes = CONTENT
    breaks_after: int | None = 1_000_000
    most: int = len(CONTENT)
    ranges: list[str | None] = field(default_factory=list[str | None])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Request(scope, receive).headers.get("range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        end = min(start + self.most, len(self.content)) if asked else len(self.content)
        body, headers = self.content[start:end], self.headers
        span = {"content-range": f"bytes {start}-{end - 1}/{len(self.content)}"} if asked else {}
        told = {"content-length": str(len(body)), **span, **headers}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
        await send({"type": "http.response.start", "status": 206 if asked else 200, "headers": raw})
        limit, self.breaks_after = self.breaks_after, None
        if limit is None:
            await send({"type": "http.response.body", "body": body})
            return
        self.content, self.headers = self.next, self.next_headers
        await send({"type": "http.response.body", "body": body[:limit], "more_body": True})
        raise ConnectionAbortedError("here it breaks")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"etag": '"a"'}, {"etag": '"b"'}),
        ({"etag": '"a"', "last-modified": "Mon, 01 Jun 2026 00:00:00 GMT"}, {"etag": '"b"'}),
        ({"last-modified": "Mon, 01 Jun 2026 00:00:00 GMT"}, {"last-modified": "Tue, 02 Jun 2026 00:00:00 GMT"}),
    ],
)
async def test_two_files_are_never_joined_though_the_server_heeds_no_condition(
    before: dict[str, str], after: dict[str, str], serve: Serve, tmp_path: Path
) -> None:
    careless, part = Careless(CONTENT[::-1], before, after), tmp_path / "part"
    url = serve(Starlette(routes=[Route("/file", careless)]))
    await Outbound(open_to(url), patience=QUICK).fetch(f"{url}/file", part)
    assert part.read_bytes() == CONTENT
    assert careless.ranges == [None, "bytes=1000000-", None]


async def test_a_part_that_ends_before_the_file_does_is_not_the_whole(serve: Serve, tmp_path: Path) -> None:
    careless, part = Careless(CONTENT, {"etag": '"a"'}, {"etag": '"a"'}, most=1_000_000), tmp_path / "part"
    url = serve(Starlette(routes=[Route("/file", careless)]))
    received = await Outbound(open_to(url), patience=QUICK).fetch(f"{url}/file", part)
    assert (received.size_bytes, part.read_bytes() == CONTENT) == (len(CONTENT), True)
    assert careless.ranges == [None, "bytes=1000000-", "bytes=2000000-", "bytes=3000000-"]


async def test_a_tag_that_cannot_be_sent_back_is_not(serve: Serve, tmp_path: Path) -> None:
    tag = {"etag": '"\u00e9"'}
    careless, part = Careless(CONTENT, tag, tag), tmp_path / "part"
    url = serve(Starlette(routes=[Route("/file", careless)]))
    await Outbound(open_to(url), patience=QUICK).fetch(f"{url}/file", part)
    assert part.read_bytes() == CONTENT
    assert careless.ranges == [None, None]


async def test_redirects_are_checked_like_any_address(site: Site, serve: Serve, tmp_path: Path) -> None:
    url, other, part = serve(site.app()), serve(site.app()), tmp_path / "part"
    for leads_to, kind, said in (
        (f"{other}/file", Forbidden, "redirects there"),
        ("file:///etc/passwd", InvalidArguments, "begins with `file`"),
        ("http://169.254.169.254/latest", Forbidden, "redirects there"),
        ("https://xn--/", BackendRejected, "cannot be read"),
        ("http://127.0.0.1:99999/", InvalidArguments, "its port is 99999"),
    ):
        site.leads_to = leads_to
        refused = await refusal(open_to(url), f"{url}/moved", part)
        assert isinstance(refused, kind)
        assert said in refused.message
    assert site.ranges == []
    assert isinstance(await refusal(open_to(url), f"{url}/circle", part), BackendRejected)
    site.leads_to = f"{other}/file"
    await Outbound(open_to(url, other)).fetch(f"{url}/moved", part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFound),
        (401, BackendRejected),
        (403, BackendRejected),
        (503, BackendUnavailable),
        (418, BackendRejected),
    ],
)
async def test_a_refusal_says_what_kind_it_is(
    status: int, kind: type[ToolError], site: Site, serve: Serve, tmp_path: Path
) -> None:
    url = serve(site.app())
    refused = await refusal(open_to(url), f"{url}/status/{status}", tmp_path / "part")
    assert isinstance(refused, kind)
    assert refused.details["http_status"] == status


async def test_no_more_than_the_bound_is_fetched(site: Site, serve: Serve, tmp_path: Path) -> None:
    url = serve(site.app())
    refused = await refusal(open_to(url, max_bytes=len(CONTENT) - 1), f"{url}/file", tmp_path / "part")
    assert isinstance(refused, TooLarge)
    assert refused.details == {"size_bytes": len(CONTENT), "limit_bytes": len(CONTENT) - 1}
    assert isinstance(await refusal(open_to(url), f"{url}/compressed", tmp_path / "part"), BackendRejected)


async def test_who_is_not_there_is_named(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/a", "http://no-such-host.invalid:9/a"):
        refused = await refusal(open_to(url), url, tmp_path / "part")
        assert isinstance(refused, BackendUnavailable)
        assert str(urlsplit(url).hostname) in refused.message
