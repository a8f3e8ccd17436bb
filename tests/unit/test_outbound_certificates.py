"""Files from the world outside by TLS: the address is pinned, and the certificate is still that of the name."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mcp_toolserver.errors import BackendUnavailable
from mcp_toolserver.outbound import Outbound, OutboundPolicy
from mcp_toolserver.retries import Patience

CONTENT = bytes(range(256)) * 12_000
QUICK = Patience(retries=2, first_wait_s=0.01, longest_wait_s=0.01)


@asynccontextmanager
async def secure_site(folder: Path, name: str) -> AsyncGenerator[tuple[str, Path]]:
    """Serve CONTENT by TLS on this machine, under a certificate for `name`; yields the address and the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_file)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"host: localhost:" in head.lower()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(CONTENT) + CONTENT)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/file", pem


async def test_the_certificate_must_be_that_of_the_name_though_the_address_is_pinned(tmp_path: Path) -> None:
    for name, is_fetched in (("localhost", True), ("other.test", False)):
        part = tmp_path / f"{name}.part"
        async with secure_site(tmp_path, name) as (url, pem):
            policy = OutboundPolicy(hosts=(urlsplit(url).netloc,), private_addresses=True)
            outbound = Outbound(policy, tls=ssl.create_default_context(cafile=str(pem)), patience=QUICK)
            if is_fetched:
                await outbound.fetch(url, part)
                assert part.read_bytes() == CONTENT
            else:
                with pytest.raises(BackendUnavailable, match="certificate"):
                    await outbound.fetch(url, part)
                assert not part.exists()
