"""``authenticate`` sees each request, and filters and handlers see its identity."""

from __future__ import annotations

import httpx
import pytest
from helpers.gateway_tools import browsing, hosting

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, HttpRequest, Message, outlives
from trio_rpc.testing import open_session_pair


class Service:
    @trio_rpc.method
    async def who(self) -> dict[str, str | None]:
        call = trio_rpc.current_call()
        request = call.request
        if request is None:
            return {"identity": call.identity}
        return {
            "identity": call.identity,
            "verb": request.method,
            "path": request.path,
            "address": request.address,
            "agent": request.headers.get("x-agent"),
            "theme": request.cookies.get("theme"),
        }

    @trio_rpc.method
    @outlives
    async def kept(self) -> str:
        return "kept"


async def check(request: HttpRequest) -> str:
    assert request.identity is None
    user = request.cookies.get("user")
    if user is None:
        raise trio_rpc.Refused("log in first")
    if user == "broken":
        raise LookupError("no such table")
    return user


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("connects", [False, True])
async def test_a_handler_sees_the_request_and_the_identity(connects):
    async with hosting(Gateway(Service(), authenticate=check)) as url:
        message = Message(
            "127.0.0.1",
            port_of(url),
            headers={"X-Agent": "tests"},
            cookies={"user": "ann", "theme": "dark"},
        )
        if connects:
            async with message.connect():
                got, client_id = await message.post("who"), f"/{message.client_id}"
        else:
            got, client_id = await message.post("who"), ""
        assert got.pop("path") == f"/api/who{client_id}"
        assert got == {
            "identity": "ann",
            "verb": "POST",
            "address": "127.0.0.1",
            "agent": "tests",
            "theme": "dark",
        }


async def test_a_filter_sees_them_and_can_refuse():
    async def only_ann(call, proceed):
        assert call.request.cookies["user"] == call.identity
        if call.identity != "ann":
            raise trio_rpc.Unavailable(f"not for {call.identity}")
        return await proceed()

    async with hosting(Gateway(Service(), authenticate=check, filters=[only_ann])) as url:
        for user in ("ann", "bob"):
            message = Message("127.0.0.1", port_of(url), cookies={"user": user})
            if user == "ann":
                assert (await message.post("who"))["identity"] == "ann"
            else:
                with pytest.raises(trio_rpc.Unavailable, match="not for bob"):
                    await message.post("who")


async def test_a_refused_request_reaches_nothing():
    """A POST alone, a POST of a client, a WebSocket, and a result."""
    async with hosting(Gateway(Service(), authenticate=check)) as url:
        message = Message("127.0.0.1", port_of(url))
        with pytest.raises(trio_rpc.Refused, match=r"^log in first$"):
            await message.post("who")
        with pytest.raises(OSError, match="401"):
            async with message.connect():
                pass
        async with httpx.AsyncClient(base_url=url) as http:
            for verb, path in (("POST", "/api/who/someone"), ("GET", "/api/result/some")):
                answer = await http.request(verb, path)
                assert (answer.status_code, answer.json()) == (401, {"error": "log in first"})


async def test_a_client_whose_user_is_logged_out_starts_no_more_calls():
    users = {"ann"}

    async def logged_in(request: HttpRequest) -> str:
        if "ann" not in users:
            raise trio_rpc.Refused("logged out")
        return "ann"

    gateway = Gateway(Service(), authenticate=logged_in)
    async with hosting(gateway) as url, browsing(url) as browser:
        kept = await browser.start("kept")
        await browser.until_end(kept)
        users.clear()
        assert (await browser.post("who")).status_code == 401
        token = {"Trio-Rpc-Token": browser.token}
        assert (await browser.http.get(f"/api/result/{kept}", headers=token)).status_code == 401
        users.add("ann")
        assert (await browser.http.get(f"/api/result/{kept}", headers=token)).status_code == 200


async def test_the_failure_of_authenticate_is_logged_and_tells_the_client_nothing(caplog):
    async with hosting(Gateway(Service(), authenticate=check)) as url:
        async with httpx.AsyncClient(base_url=url, cookies={"user": "broken"}) as http:
            answer = await http.post("/api/who", json={})
        assert answer.status_code == 500
        assert answer.json() == {"error": "the identity could not be checked"}
    assert "no such table" in caplog.text


async def test_the_origin_is_checked_before_the_identity():
    seen = []

    async def note(request: HttpRequest) -> None:
        seen.append(request)

    async with hosting(Gateway(Service(), authenticate=note)) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.post("/api/who", json={}, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert seen == []


async def test_without_authenticate_the_request_has_no_identity():
    async with hosting(Gateway(Service(), limits=GatewayLimits())) as url:
        got = await Message("127.0.0.1", port_of(url), cookies={"theme": "dark"}).post("who")
    assert (got["identity"], got["theme"], got["address"]) == (None, "dark", "127.0.0.1")


async def test_a_call_on_a_session_has_neither_even_if_its_context_claims_so():
    async with open_session_pair(None, Service()) as (session, _):
        with trio_rpc.metadata(identity="ann", request="mine"):
            assert await session.call("who") == {"identity": None}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"headers": {"Trio-Rpc-Token": "x"}}, "the client itself sets the header"),
        ({"headers": {"Cookie": "a=b"}}, "the client itself sets the header"),
        ({"headers": {"host": "a"}}, "the client itself sets the header"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "must be printable ASCII"),
        ({"headers": {"X A": "a"}}, "must be printable ASCII"),
        ({"headers": {"X-A": "ä"}}, "must be printable ASCII"),
        ({"cookies": {"user": "ann; admin=1"}}, "the cookie 'user'"),
        ({"cookies": {"us=er": "ann"}}, "the cookie 'us=er'"),
        ({"cookies": {"user": "ann\n"}}, "the cookie 'user'"),
    ],
)
def test_headers_and_cookies_that_http_cannot_carry_are_refused(given, text):
    with pytest.raises(ValueError, match=text):
        Message("127.0.0.1", 80, **given)


def test_authenticate_must_be_a_function():
    with pytest.raises(TypeError, match="authenticate must be an async function or None: 3"):
        Gateway(Service(), authenticate=3)
