from __future__ import annotations

import functools

import pytest

from trio_rpc.services.decorators import (
    Kind,
    MethodMark,
    duplex,
    mark_of,
    method,
    notification,
    wire_name,
)


class Gone(Exception):
    pass


def test_a_decorator_returns_the_same_function():
    async def price(self): ...

    def log(self): ...

    assert method(price) is price
    assert notification(log) is log
    assert mark_of(price) == MethodMark(Kind.METHOD)
    assert mark_of(log) == MethodMark(Kind.NOTIFICATION)


def test_the_mark_holds_the_declared_exceptions():
    @method(raises=(Gone, KeyError))
    async def price(self): ...

    assert mark_of(price) == MethodMark(Kind.METHOD, (Gone, KeyError))


def test_unmarked_objects_have_no_mark():
    assert mark_of(print) is None
    assert mark_of(None) is None


@pytest.mark.parametrize("decorator", [method, notification, method(raises=(Gone,))])
@pytest.mark.parametrize(
    "wrap", [staticmethod, classmethod, property, lambda function: 7, lambda function: object]
)
def test_only_functions_can_be_marked(decorator, wrap):
    def price(self): ...

    with pytest.raises(TypeError, match="a remote method"):
        decorator(wrap(price))


@pytest.mark.parametrize("wrap", [staticmethod, classmethod, property, functools.partialmethod])
def test_a_refusal_names_the_function_and_says_what_to_write(wrap):
    def price(self): ...

    with pytest.raises(
        TypeError, match=r"<locals>\.price: .* cannot be a .*: decorate a def that takes self"
    ):
        method(wrap(price))


def test_a_wrapper_can_be_a_duplex():
    async def chat(self, channel): ...

    @functools.wraps(chat)
    def wrapped(*args):
        return chat(*args)

    async def bare(*args, **kwargs): ...

    async def too_few(self, *, channel): ...

    def plain(self, channel):
        return chat(self, channel)

    for function in (wrapped, bare):
        assert mark_of(duplex(function)) == MethodMark(Kind.DUPLEX)
    with pytest.raises(TypeError, match=r"plain must be an async def, since it uses a channel"):
        duplex(plain)
    with pytest.raises(TypeError, match="must have a parameter after self"):
        duplex(too_few)


def test_private_names_cannot_be_marked():
    def _price(self): ...

    def __len__(self): ...  # noqa: N807

    def größe(self): ...  # noqa: PLC2401

    for function in (_price, __len__, größe, lambda self: None):
        with pytest.raises(TypeError, match="its name"):
            method(function)


def test_generators_cannot_be_marked():
    async def ticks(self):
        yield 1

    def numbers(self):
        yield 1

    for function in (ticks, numbers):
        with pytest.raises(TypeError, match="is a generator"):
            method(function)


def test_a_function_cannot_be_marked_twice():
    @method
    def price(self): ...

    with pytest.raises(TypeError, match="marked twice"):
        notification(price)


def _class_named(name):
    return type(name, (Exception,), {})


@pytest.mark.parametrize(
    ("raises", "error_text"),
    [
        (Gone, "a tuple"),
        ([Gone], "a tuple"),
        ((Gone(),), "not a subclass of Exception"),
        (("Gone",), "not a subclass of Exception"),
        ((KeyboardInterrupt,), "declare an exception of your own"),
        ((BaseExceptionGroup,), "declare the exceptions in it"),
        ((ExceptionGroup,), "declare the exceptions in it"),
        ((Gone, _class_named("Gone")), "two classes with one name: Gone, Gone"),
    ],
)
def test_raises_takes_a_tuple_of_distinct_exception_classes(raises, error_text):
    with pytest.raises(TypeError, match=error_text):
        method(raises=raises)


def test_a_declared_exception_may_have_the_name_of_a_built_in_one():
    mine = _class_named("KeyError")
    assert wire_name(mine) == "KeyError"
    assert wire_name(KeyError) == "builtins.KeyError"
    method(raises=(mine, KeyError))


@pytest.mark.parametrize(("raises", "hint"), [(Gone, "Gone"), ([Gone], "ValueError"), (7, "Value")])
def test_raises_that_is_not_a_tuple_is_refused_with_an_error_that_says_how_to_write_it(
    raises, hint
):
    with pytest.raises(TypeError, match=rf"must be a tuple .*: raises=\({hint}"):
        method(raises=raises)
