"""The options that type checkers see are the options that a session has."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Unpack

import pytest

import trio_rpc
from trio_rpc import Options, SessionOptions

OPENERS = (
    trio_rpc.connect,
    trio_rpc.connect_in,
    trio_rpc.keep_process,
    trio_rpc.open_parent,
    trio_rpc.open_pool,
    trio_rpc.open_process,
    trio_rpc.open_server,
    trio_rpc.open_session,
    trio_rpc.serve,
    trio_rpc.serve_parent,
    trio_rpc.serve_session,
)


def test_session_options_match_the_fields_of_options():
    seen = {name: each.__forward_arg__ for name, each in SessionOptions.__annotations__.items()}
    assert seen == {field.name: field.type for field in dataclasses.fields(Options)}
    assert SessionOptions.__required_keys__ == frozenset()


def test_each_option_is_described():
    described = inspect.getdoc(Options).partition("Attributes:")[2]
    for field in dataclasses.fields(Options):
        assert f"\n    {field.name}: " in described


@pytest.mark.parametrize("opener", OPENERS, ids=lambda opener: opener.__name__)
def test_each_opener_of_a_session_declares_its_options_for_editors(opener):
    rest = inspect.signature(opener).parameters["options"]
    assert rest.kind is inspect.Parameter.VAR_KEYWORD
    module = inspect.getmodule(inspect.unwrap(opener))
    assert eval(rest.annotation, vars(module)) == Unpack[SessionOptions]  # noqa: S307 - our own annotation


def test_connect_in_has_all_options_of_connect_but_on_end():
    def options(opener):
        return {
            each.name: (each.default, each.annotation)
            for each in inspect.signature(opener).parameters.values()
            if each.kind is each.KEYWORD_ONLY
        }

    wanted = options(trio_rpc.connect)
    del wanted["on_end"]
    assert options(trio_rpc.connect_in) == wanted


def test_the_repr_of_limits_shows_values_that_differ_from_the_defaults():
    assert repr(trio_rpc.Limits()) == "Limits()"
    limits = trio_rpc.Limits(max_calls=16, close_grace=30)
    assert repr(limits) == "Limits(max_calls=16, close_grace=30)"
    assert eval(repr(limits), vars(trio_rpc)) == limits  # noqa: S307 - our own text
