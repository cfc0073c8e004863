"""Proxies have an attribute for each remote method, and no others."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

import pytest

from trio_rpc.errors import DecodeError
from trio_rpc.services.decorators import Kind, method, notification
from trio_rpc.services.proxies import Proxy, RemoteMethod


class Gone(Exception):
    pass


@dataclass
class Receipt:
    number: int


class Market:
    @method(raises=(Gone, KeyError))
    async def order(self, symbol: str, count: int = 1) -> Receipt: ...

    @method
    def anything(self): ...

    @notification
    async def log(self, line: str) -> None: ...

    def local(self): ...


class FakeSession:
    def __init__(self):
        self.calls = []

    async def invoke(self, remote, args, kwargs):
        self.calls.append((remote.name, remote.kind, args, kwargs))
        return remote.name


@pytest.fixture
def session():
    return FakeSession()


async def test_a_method_call_is_passed_to_the_session(session):
    """An attribute of a proxy is a function that sends a request or a notification."""
    proxy = Proxy(session, "market", Market)
    assert await proxy.order("BTC", count=2) == "market.order"
    await proxy.log("hello")
    assert session.calls == [
        ("market.order", Kind.METHOD, ("BTC",), {"count": 2}),
        ("market.log", Kind.NOTIFICATION, ("hello",), {}),
    ]


async def test_any_keyword_can_be_passed(session):
    await Proxy(session).order(self=1, args=2, kwargs=3)
    assert session.calls == [("order", Kind.METHOD, (), {"self": 1, "args": 2, "kwargs": 3})]


def test_nothing_is_sent_before_the_call_is_awaited(session):
    call = Proxy(session).price()
    assert inspect.iscoroutine(call)
    call.close()
    assert session.calls == []


def test_a_proxy_returns_the_same_method_object_each_time(session):
    for proxy in (Proxy(session, "market"), Proxy(session, "market", Market)):
        assert proxy.order is proxy.order
        assert vars(proxy)["order"] is proxy.order


def test_a_proxy_has_only_the_methods_of_its_interface(session):
    proxy = Proxy(session, "market", Market)
    assert proxy.order.kind is Kind.METHOD
    assert proxy.log.kind is Kind.NOTIFICATION
    assert proxy.order.raises == {"Gone": Gone, "builtins.KeyError": KeyError}
    for name in ("local", "Order", "nothing"):
        with pytest.raises(AttributeError, match=f"Market has no remote method '{name}'; it has"):
            getattr(proxy, name)
    assert {"order", "log", "anything"} <= set(dir(proxy))


def test_results_are_converted_by_the_interface(session):
    proxy = Proxy(session, "market", Market)
    assert proxy.order.convert({"number": 1}) == Receipt(1)
    with pytest.raises(DecodeError, match=r"^the result of market.order: Expected `int`"):
        proxy.order.convert({"number": "1"})
    assert proxy.anything.convert is None
    assert Proxy(session, "market").order.convert is None


def test_an_interface_may_be_a_protocol(session):
    class Later(Protocol):
        @method
        def price(self, symbol: str) -> Awaitable[float]: ...

    assert Proxy(session, "", Later).price.convert(1) == 1.0


@pytest.mark.parametrize(
    "name", ["once", "online", "on", "notify", "onChange", "log", "emit", "sendAll", "x1"]
)
def test_the_kind_of_a_method_does_not_depend_on_its_name(session, name):
    """No name is a request in one place and a notification in another because of its spelling."""
    assert getattr(Proxy(session, "market"), name).kind is Kind.METHOD


@pytest.mark.parametrize("interface", [None, Market])
def test_private_names_are_not_methods(session, interface):
    proxy = Proxy(session, "market", interface)
    for name in ("_x", "__x", "__await__", "__iter__", "__aenter__", "__len__", "__wrapped__"):
        assert not hasattr(proxy, name)


@pytest.mark.parametrize("interface", [None, Market])
def test_a_proxy_has_no_attributes_that_other_libraries_look_for(session, interface):
    """Proxies are not mistaken for awaitables, iterables or values that can be pickled."""
    proxy = Proxy(session, "market", interface)
    assert not isinstance(proxy, Awaitable)
    assert not callable(proxy)
    for use in (iter, len, pickle.dumps, copy.copy, copy.deepcopy, lambda it: it["x"]):
        with pytest.raises(TypeError):
            use(proxy)
    with pytest.raises(TypeError):
        pickle.dumps(proxy.order)
    assert bool(proxy)
    assert proxy == proxy  # noqa: PLR0124
    assert proxy != Proxy(session, "market", interface)
    assert session.calls == []


def test_a_proxy_made_without_init_is_harmless():
    # Copying and mocking libraries call __new__ without __init__.
    proxy = object.__new__(Proxy)
    assert not hasattr(proxy, "__deepcopy__")
    with pytest.raises(AttributeError):
        proxy.price  # noqa: B018
    assert repr(proxy) == "<proxy of ''>"


def test_attributes_of_a_proxy_cannot_be_set(session):
    proxy = Proxy(session, "market")
    with pytest.raises(AttributeError, match="cannot be set"):
        proxy.price = 3


@pytest.mark.parametrize(("interface", "why"), [(Market(), "must be a class"), (int, "no methods")])
def test_an_interface_is_a_class_with_marked_methods(session, interface, why):
    with pytest.raises(TypeError, match=why):
        Proxy(session, "market", interface)


def test_the_name_of_the_service_may_be_empty(session):
    assert Proxy(session).price.name == "price"
    assert Proxy(session, "", Market).order.name == "order"


def test_repr_is_readable(session):
    assert repr(Proxy(session, "market")) == "<proxy of 'market'>"
    assert repr(Proxy(session, "market", Market)) == "<proxy of 'market' as Market>"
    assert repr(Proxy(session, "market", Market).log) == "<remote notification 'market.log'>"
    assert repr(RemoteMethod(session, "x")) == "<remote method 'x'>"


@pytest.mark.parametrize("service", [Market, Market(), 7, None])
def test_the_name_of_a_service_is_a_string(service):
    with pytest.raises(TypeError, match=r"a service's name must be a str, not .*: proxy\(name, "):
        Proxy(None, service)
