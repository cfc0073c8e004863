"""The examples in the help of each command."""

from __future__ import annotations

__all__ = ["EXAMPLES", "EXIT_CODES", "epilogue"]

EXAMPLES = {
    "": (
        ("watch two processes call each other", "trio-rpc demo"),
        ("list the methods of a server", "trio-rpc describe tcp://127.0.0.1:5000"),
    ),
    "demo": (
        ("take about two seconds", "trio-rpc demo --quick"),
        ("print one JSON object", "trio-rpc demo --json"),
    ),
    "serve": (
        (
            "to programs",
            "trio-rpc serve examples.market:services --listen tcp://127.0.0.1:5000",
        ),
        (
            "to browsers, with their pages",
            "trio-rpc serve app:services --listen http://127.0.0.1:8000 --pages pages",
        ),
    ),
    "call": (
        (
            "arguments by position",
            "trio-rpc call tcp://127.0.0.1:5000 market.price '[\"BTC\"]'",
        ),
        (
            "arguments by name, cancelled after 5 seconds",
            "trio-rpc call unix:///run/app.sock build '{\"clean\": true}' --timeout 5",
        ),
    ),
    "stream": (
        (
            "three items",
            "trio-rpc stream tcp://127.0.0.1:5000 market.ticks '[\"BTC\"]' --count 3",
        ),
        (
            "all items for ten seconds, one line of JSON each",
            "trio-rpc stream ws://127.0.0.1:8000/rpc log.lines --timeout 10 --json",
        ),
    ),
    "notify": (
        ("a server", "trio-rpc notify tcp://127.0.0.1:5000 log.note '[\"hello\"]'"),
        (
            "arguments from a file",
            "trio-rpc notify tcp://127.0.0.1:5000 log.note @note.json",
        ),
    ),
    "describe": (
        ("a server", "trio-rpc describe tcp://127.0.0.1:5000"),
        ("a program that serves its parent", "trio-rpc describe 'exec:python plugin.py'"),
    ),
    "health": (
        ("a server as a whole", "trio-rpc health tcp://127.0.0.1:5000"),
        (
            "one service, within a second",
            "trio-rpc health tcp://127.0.0.1:5000 --service market --timeout 1",
        ),
    ),
    "instances": (
        ("instances of the market", "trio-rpc instances nats://10.0.0.1,10.0.0.2/market"),
        (
            "all addresses of a name, after each change",
            "trio-rpc instances dns+tcp://market:5000 --watch",
        ),
    ),
    "typescript": (
        ("for session.js", "trio-rpc typescript market:services"),
        (
            "for message.js, the client of a gateway",
            "trio-rpc typescript market:services --gateway",
        ),
    ),
    "openapi": (
        ("the POST routes of a gateway", "trio-rpc openapi market:services"),
        ("with a title", "trio-rpc openapi market:services --title Market"),
    ),
    "ping": (
        ("ten times", "trio-rpc ping tcp://127.0.0.1:5000 --count 10"),
        (
            "a server whose certificate the system does not know",
            "trio-rpc ping tls://example.org:5000 --ca ca.pem",
        ),
    ),
    "bench": (
        (
            "64 calls at a time, with arguments from a file",
            "trio-rpc bench tcp://127.0.0.1:5000 market.price @btc.json -c 64",
        ),
        (
            "10,000 calls, one after the other, for scripts",
            "trio-rpc bench unix:///run/app.sock health.check -n 10000 --json",
        ),
    ),
    "top": (
        ("calls in flight, every two seconds", "trio-rpc top tcp://127.0.0.1:5000 --every 2"),
        ("cancel one of them", "trio-rpc top tcp://127.0.0.1:5000 --cancel 3-in-17"),
    ),
}
"""The examples of each command: a description, and the line to type."""

EXIT_CODES = (
    "Exit codes: 0 done, 1 the call failed, 2 bad usage, 3 no session (no server, refused, lost)"
    " or the address is in use, 130 interrupted."
)


URLS = (
    "Without a URL, it is the one in the environment variable TRIO_RPC_URL, or else in the table"
    " [tool.trio-rpc] of the nearest pyproject.toml."
)

WITHOUT_URL = ("", "demo", "serve", "typescript", "openapi")
"""The commands that take no URL of a server."""


def epilogue(command: str) -> str:
    """Return the end of a command's help: its examples and the exit codes, as Markdown."""
    lines = [line for what, typed in EXAMPLES[command] for line in (f"# {what}", f"$ {typed}")]
    more = [URLS, ""] if command not in WITHOUT_URL else []
    return "\n".join(["Examples:", "", "```console", *lines, "```", "", *more, EXIT_CODES])
