"""Fetch files from the world outside, and from nowhere that a caller's URL should not lead this machine to.

A URL from a caller is a wish to make this server connect somewhere: to a router, a cloud's metadata service, another
user's port. So every address is checked after its name was resolved, the connection goes to that very address, and each
redirect is a new URL that is checked again.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from socket import SOCK_STREAM, gaierror

import anyio
import httpx
from anyio import to_thread

from mcp_toolserver.errors import BackendRejected, BackendUnavailable, Forbidden, InvalidArguments, NotFound, ToolError
from mcp_toolserver.receiving import Received, receive, resuming_headers
from mcp_toolserver.retries import Patience, patiently
from mcp_toolserver.tools import Report, unheard

_PORTS = {"https": 443, "http": 80}
_LAST_PORT = 65535
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RANGE_NOT_SATISFIABLE = 416
_GONE = frozenset({404, 410})
_WANTS_LOGIN = frozenset({401, 402, 403, 407, 451})
_FOR_A_WHILE = frozenset({408, 425, 429, 500, 502, 503, 504})
# An IPv4 address in IPv6's clothes (RFC 6052): the gateway leads to the inner one.
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundPolicy:
    """Say where files may be fetched from; as it stands here, from nowhere.

    A host is a name (`example.org`), a name with all below it (`.example.org`), or either with a port
    (`example.org:8443`); without one, that of the scheme is meant. `setting` names for people where to add one. With
    `same_host`, a redirect to another host is refused, be it listed or not.
    """

    hosts: tuple[str, ...] = ()
    schemes: frozenset[str] = field(default_factory=lambda: frozenset({"https"}))
    private_addresses: bool = False
    max_bytes: int = 64 * 1024**3
    max_redirects: int = 5
    same_host: bool = False
    setting: str = "the list of hosts"

    def check(self, url: str, *, redirected_from: str | None = None) -> httpx.URL:
        """Return the URL, parsed; raises InvalidArguments for what is none, and Forbidden for a host not listed."""
        parsed = _read(url)
        if parsed.scheme not in self.schemes:
            allowed = " or ".join(sorted(self.schemes))
            raise _bad(url, f"it begins with `{parsed.scheme or 'nothing'}`, and only {allowed} is fetched")
        if parsed.userinfo:
            raise _bad(url, "it holds a user name or a password")
        if not parsed.host:
            raise _bad(url, "it names no host")
        if not self._is_listed(parsed):
            led = f" {redirected_from} redirects there." if redirected_from else ""
            raise Forbidden(
                f"Files are not fetched from `{_origin(parsed)}`: this server fetches from "
                f"{', '.join(self.hosts) or 'no host at all'}.{led}",
                hint=f"Who runs this server adds the host to {self.setting} if it is to be trusted.",
                details={"field": "url", "host": parsed.host, "hosts": list(self.hosts), "setting": self.setting},
            )
        return parsed

    def _is_listed(self, url: httpx.URL) -> bool:
        port = url.port or _PORTS.get(url.scheme, 0)
        for entry in self.hosts:
            name, wanted = _split(entry.lower())
            if port != (int(wanted) if wanted else _PORTS.get(url.scheme)):
                continue
            # As httpx writes a name outside ASCII.
            host = url.host.lower().rstrip(".")
            if host == name.lstrip(".") or (name.startswith(".") and host.endswith(name)):
                return True
        return False


class Outbound:
    """Fetch files under a policy; `tls` replaces the usual certificates, as where a company signs its own."""

    def __init__(
        self, policy: OutboundPolicy, *, tls: ssl.SSLContext | None = None, patience: Patience | None = None
    ) -> None:
        self.policy = policy
        self._tls = tls
        self._patience = patience or Patience(retries=3)

    async def fetch(self, url: str, part: Path, *, report: Report = unheard) -> Received:
        """Stream a file into `part`, going on where an earlier fetch broke off, also after this program died.

        A broken connection is tried again while there is progress. `report` hears of each read once it is in `part`;
        what it raises ends the fetch. Raises Forbidden, InvalidArguments, NotFound, TooLarge, BackendRejected or
        BackendUnavailable.
        """
        self.policy.check(url)
        best = 0.0

        async def heard(done: float, /, total: float | None = None, message: str | None = None) -> None:
            nonlocal best
            best = done
            await report(done, total, message)

        async def attempt() -> Received:
            return await self._follow(url, part, heard)

        return await patiently(attempt, self._patience, progress=lambda: best)

    async def _follow(self, url: str, part: Path, report: Report) -> Received:
        target = self.policy.check(url)
        for _ in range(self.policy.max_redirects + 1):
            next_url = await self._visit(target, part, report)
            if isinstance(next_url, Received):
                return next_url
            if self.policy.same_host and next_url.host != target.host:
                raise _led_away(url, next_url)
            target = self.policy.check(str(next_url), redirected_from=_origin(target))
        raise BackendRejected(
            f"{url} redirects more than {self.policy.max_redirects} times.",
            hint="Give the address where the file itself is.",
            details={"url": url},
        )

    async def _visit(self, url: httpx.URL, part: Path, report: Report) -> Received | httpx.URL:
        """Ask one address for the file; returns where it redirects to, if it does."""
        port = url.port or _PORTS[url.scheme]
        addresses = await self._addresses(url.host, port)
        if self._tls is None and url.scheme == "https":
            # Reading the certificates takes long enough to hold up everybody else.
            self._tls = await to_thread.run_sync(httpx.create_ssl_context)
        headers = await resuming_headers(part) | {"Host": url.netloc.decode(), "User-Agent": "loraloop"}
        # A client for each visit: a kept connection would answer for another name at the same address, unverified.
        async with httpx.AsyncClient(
            trust_env=False, verify=self._tls or False, timeout=httpx.Timeout(60.0, connect=10.0)
        ) as client:
            for address in addresses:
                request = client.build_request(
                    "GET",
                    url.copy_with(host=str(address)),
                    headers=headers,
                    # The certificate is that of the name, though the connection goes to the address.
                    extensions={"sni_hostname": url.host},
                )
                try:
                    answer = await client.send(request, stream=True)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    if address == addresses[-1]:
                        raise _unavailable(url, error) from error
                    continue
                except httpx.TransportError as error:
                    raise _unavailable(url, error) from error
                except UnicodeError as error:
                    # httpx reads where a redirect leads, be it followed or not.
                    raise BackendRejected(
                        f"{_origin(url)} redirects to an address that cannot be read: {error}.",
                        hint="Give the address where the file itself is.",
                        details={"url": str(url)},
                    ) from error
                try:
                    if answer.status_code in _REDIRECTS and "location" in answer.headers:
                        return _read(str(url.join(answer.headers["location"])))
                    if not answer.is_success and answer.status_code != _RANGE_NOT_SATISFIABLE:
                        raise _refused(url, answer)
                    return await receive(answer, part, report=report, max_bytes=self.policy.max_bytes)
                except httpx.TransportError as error:
                    raise _unavailable(url, error) from error
                finally:
                    with anyio.CancelScope(shield=True):
                        await answer.aclose()
        raise BackendUnavailable(f"`{url.host}` has no address.", hint="Check the name in the URL.")

    async def _addresses(self, host: str, port: int) -> Sequence[IPv4Address | IPv6Address]:
        try:
            found = await anyio.getaddrinfo(host, port, type=SOCK_STREAM)
        except (gaierror, UnicodeError) as error:
            raise BackendUnavailable(
                f"The host `{host}` is not found ({error}).",
                hint="Check the name in the URL, and this machine's network.",
                details={"host": host},
            ) from error
        addresses = list(dict.fromkeys(ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found))
        for address in addresses:
            # One inner address among public ones is how a name is made to lead inside.
            if not self.policy.private_addresses and not is_public(address):
                raise Forbidden(
                    f"`{host}` leads to {address}, an address that is not of the open internet.",
                    hint="Nothing is fetched from this machine or its own network; give an address of the internet.",
                    details={"field": "url", "host": host, "address": str(address)},
                )
        return addresses


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is one of the open internet, also where it wraps another one."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        # Site-local: long out of use, and still inner.
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _split(entry: str) -> tuple[str, str]:
    """Return the name and the port of a host in the list; an IPv6 address with a port stands in brackets."""
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":")
    name, _, port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
    return name, port


def _read(url: str) -> httpx.URL:
    """Return a URL, parsed; raises InvalidArguments for what is none."""
    try:
        parsed = httpx.URL(url)
        # A name that was encoded wrongly is found out only when it is read.
        _, port = parsed.host, parsed.port
    except (httpx.InvalidURL, TypeError, UnicodeError) as error:
        raise _bad(url, f"it cannot be read: {error}") from None
    if port is not None and not 0 < port <= _LAST_PORT:
        raise _bad(url, f"its port is {port}, and ports are 1 to {_LAST_PORT}")
    return parsed


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _bad(url: str, problem: str) -> InvalidArguments:
    return InvalidArguments(
        f"Argument `url` is {url[:200]!r}: {problem}.",
        hint="Send the https address of the file itself.",
        details={"field": "url", "value": url[:200]},
    )


def _led_away(url: str, next_url: httpx.URL) -> Forbidden:
    return Forbidden(
        f"{url} redirects to another host, {_origin(next_url)}.",
        hint="Give the address where the file itself is, or use a tool that follows redirects to the listed hosts.",
        details={"field": "url", "host": next_url.host},
    )


def _unavailable(url: httpx.URL, error: httpx.TransportError) -> BackendUnavailable:
    words = str(error).splitlines()
    return BackendUnavailable(
        f"The connection to {_origin(url)} failed: {words[0] if words else type(error).__name__}.",
        hint="Call again: what has come is kept, and the rest is asked for.",
        details={"url": str(url), "reason": type(error).__name__},
    )


def _refused(url: httpx.URL, answer: httpx.Response) -> ToolError:
    details = {"url": str(url), "http_status": answer.status_code}
    said = f"{_origin(url)} answered {answer.status_code} ({answer.reason_phrase})"
    if answer.status_code in _GONE:
        return NotFound(f"{said}: there is no such file.", hint="Check the URL in a browser.", details=details)
    if answer.status_code in _WANTS_LOGIN:
        return BackendRejected(
            f"{said}: it gives the file only to those who log in.",
            hint="Fetch it in a browser, and put it into its folder by hand or send it as an upload.",
            details=details,
        )
    if answer.status_code in _FOR_A_WHILE:
        return BackendUnavailable(f"{said}.", hint="Call again in a while: what has come is kept.", details=details)
    return BackendRejected(f"{said}.", hint="Check the URL in a browser.", details=details)
