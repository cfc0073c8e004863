import ssl
import tempfile
from pathlib import Path

import trio
import trio_rpc
import trustme


class Vault:
    @trio_rpc.method
    async def read(self) -> str:
        return "the secret"


def server_context(folder: Path) -> ssl.SSLContext:
    """Show the server's certificate, and require one of each client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(folder: Path, certificate: str = "") -> ssl.SSLContext:
    """Verify the server, and show this client's certificate."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if certificate:
        context.load_cert_chain(folder / certificate)
    return context


async def use(url: str, context: ssl.SSLContext) -> None:
    try:
        async with trio_rpc.connect(url, ssl_context=context) as session:
            print("with a certificate:", await session.proxy("vault", Vault).read())
    except (OSError, trio_rpc.SessionBroken):
        print("without a certificate: refused")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        async with trio_rpc.open_server(
            {"vault": Vault()}, "tls://127.0.0.1:0", ssl_context=server_context(folder)
        ) as server:
            await use(server.urls[0], client_context(folder, "client.pem"))
            await use(server.urls[0], client_context(folder))


def make_certificates(folder: Path) -> None:
    """Make the certificates that your certificate authority would issue."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("server", "client"):
        certificate = ca.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")


if __name__ == "__main__":
    trio.run(main)
