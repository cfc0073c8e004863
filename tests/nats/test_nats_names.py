"""Names, subjects and URLs are checked before anything is sent."""

from __future__ import annotations

import pytest

import trio_rpc
from trio_rpc.nats import Token, UserPassword, open_nats
from trio_rpc.nats.addresses import NatsAddress, Server, parse_nats_url
from trio_rpc.nats.names import check_name, check_subject, is_private, new_token

BAD_NAMES = ["", "a b", "a.b", "*", ">", "a\r\nPUB x 0", "é", "a" * 65, "a/b", None, 7]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_more_than_a_name_is_refused(name):
    with pytest.raises(ValueError, match="not the name of a service"):
        check_name(name, "a service")


@pytest.mark.parametrize("subject", ["a", "a.b", "$SRV.PING", "_INBOX.x-y_z.é"])
def test_subjects(subject):
    assert check_subject(subject) == subject


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\r\nb", "a\0", "a" * 257]
)
def test_an_invalid_subject_is_refused(subject):
    for pattern in (False, True):
        with pytest.raises(ValueError, match="not a NATS subject"):
            check_subject(subject, pattern=pattern)


@pytest.mark.parametrize("pattern", ["*", ">", "a.*", "a.*.b", "a.>"])
def test_wildcards_are_only_for_subscribing(pattern):
    assert check_subject(pattern, pattern=True) == pattern
    with pytest.raises(ValueError, match="only for subscribing"):
        check_subject(pattern)


def test_a_peer_cannot_name_any_other_subject_as_its_own():
    assert is_private(f"_INBOX.{new_token()}.{new_token()}", "_INBOX")
    for subject in ("trpc.open.market", "_INBOX.a.b", f"_INBOX.{new_token()}", "_INBOX.*.*"):
        assert not is_private(subject, "_INBOX")
    assert not is_private(f"_INBOX.{new_token()}.{new_token()}\r\nX", "_INBOX")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://a", NatsAddress((Server("a"),))),
        ("nats://a:1,b/market", NatsAddress((Server("a", 1), Server("b")), "market")),
        ("nats://[::1]:5/m/i", NatsAddress((Server("::1", 5),), "m", "i")),
        ("nats://u:p%40@a/m", NatsAddress((Server("a"),), "m", "", UserPassword("u", "p@"))),
        ("nats://t@a", NatsAddress((Server("a"),), credentials=Token("t"))),
    ],
)
def test_urls(url, expected):
    assert parse_nats_url(url) == expected


def test_a_url_never_shows_its_password():
    address = parse_nats_url("nats://ann:secret@a/market")
    assert "secret" not in str(address) + repr(address)
    with pytest.raises(ValueError) as raised:
        parse_nats_url("nats://ann:secret@a b")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "nats://",
        "nats:///market",
        "nats://a:0",
        "nats://a:65536",
        "nats://a:x",
        "nats://a,,b",
        "nats://a/b/c/d",
        "nats://a/mar*ket",
        "nats://a/>",
        "nats://a/mar ket",
        "nats://a/mar\r\nket",
        "nats://a/market?x=1",
        "tcp://a:1",
        "nats://" + ",".join(f"h{number}" for number in range(65)),
    ],
)
def test_bad_urls(url):
    with pytest.raises(ValueError, match="bad URL"):
        parse_nats_url(url)


async def test_names_are_refused_before_the_socket():
    for url in ("nats://127.0.0.1:1/a.b", "nats://127.0.0.1:1/*", "nats://127.0.0.1:1"):
        with pytest.raises(ValueError, match="bad URL"):
            async with trio_rpc.connect(url):
                pass
        with pytest.raises(ValueError, match="bad URL"):
            await trio_rpc.serve({}, url)
    with pytest.raises(ValueError, match="names a service"):
        open_nats("nats://127.0.0.1:1/market")
