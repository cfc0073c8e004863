"""docs/gateway.md says what the gateway does: limits, messages, statuses, names."""

from __future__ import annotations

import dataclasses
import re

from helpers.pages import ROOT, codes, read, section, table

from trio_rpc import gateway
from trio_rpc.gateway.server.connection import End

PAGE = "gateway.md"
SOURCE = "".join(
    path.read_text("utf-8") for path in (ROOT / "trio_rpc" / "gateway").glob("**/*.py")
)
SCRIPT = (ROOT / "trio_rpc" / "gateway" / "static" / "message.js").read_text("utf-8")


def test_every_limit_is_listed_with_its_default():
    rows = table(section(PAGE, "Limits"), "field")
    limits = gateway.GatewayLimits()
    assert [(codes(name)[0], default) for name, default, _ in rows] == [
        (field.name, str(getattr(limits, field.name))) for field in dataclasses.fields(limits)
    ]


def test_every_message_is_one_that_is_sent_or_heard():
    text = section(PAGE, "The WebSocket")
    for first, source in (("from the gateway", SCRIPT), ("from the client", SOURCE)):
        kinds = [kind for row in table(text, first) for kind in codes(row[0])]
        for kind in kinds:
            assert f'"{kind}"' in source, f"{kind} is not heard"
            assert f'"{kind}"' in (SOURCE if source is SCRIPT else SCRIPT), f"{kind} is not said"


def test_every_status_is_one_that_is_answered():
    listed = {row[0] for row in table(section(PAGE, "HTTP"), "status")}
    assert listed == set(re.findall(r"Refusal\(\s*(\d{3}),", SOURCE))


def test_every_header_is_one_that_is_read():
    listed = {codes(row[0])[0].lower() for row in table(section(PAGE, "HTTP"), "header")}
    assert listed == set(re.findall(r'headers\.get\("([a-z-]+)"', SOURCE)) - {
        "content-type",
        "host",
        "origin",
    }


def test_every_close_code_is_listed():
    rows = table(section(PAGE, "Coming back"), "close code")
    ours = {str(end.value[0]) for end in End if end is not End.GONE}
    assert {row[0] for row in rows} == ours


def test_the_names_of_the_package_are_there():
    text = read(PAGE)
    for name in gateway.__all__:
        assert re.search(rf"\b{name}\b", text), name
