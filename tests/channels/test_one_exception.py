"""One exception comes out where a nursery would raise a group."""

from __future__ import annotations

import pytest
import trio

from trio_rpc.util.one_exception import one_exception


async def test_law_16_the_one_exception_shows_no_group_and_keeps_its_context():
    first, second = KeyError("first"), ValueError("second")
    second.__context__ = first
    with pytest.raises(ValueError, match="second") as caught, one_exception():
        async with trio.open_nursery():
            raise second
    assert caught.value is second
    assert second.__context__ is first


BODY, BACKGROUND = ValueError("of the body"), ZeroDivisionError("of the background")
EXIT, OTHER_EXIT = SystemExit(3), SystemExit(4)
GROUP = ExceptionGroup("of the body", [ValueError("first"), KeyError("second")])


async def both_raise(own, other):
    """Have the body of a block, and a task in its background, raise at once; return what comes out."""

    async def fail():
        raise other

    with pytest.raises(BaseException) as caught, one_exception() as body:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            try:
                if own is None:
                    await trio.sleep_forever()
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
                raise own  # noqa: TRY301 - as the bodies of blocks do
            except BaseException as exc:
                body.append(exc)
                raise
    return caught.value


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (None, BACKGROUND, BACKGROUND),
        (BODY, BACKGROUND, BODY),
        (GROUP, BACKGROUND, GROUP),
        (EXIT, BACKGROUND, EXIT),
        (BODY, EXIT, EXIT),
        (GROUP, EXIT, EXIT),
        (EXIT, OTHER_EXIT, EXIT),
        (None, EXIT, EXIT),
        (KeyboardInterrupt(), BACKGROUND, KeyboardInterrupt),
    ],
    ids=repr,
)
async def test_law_16_what_leaves_the_block_where_its_body_and_its_background_fail(
    own, other, expected
):
    error = await both_raise(own, other)
    assert error is expected or type(error) is expected


async def test_law_16_what_failed_in_the_background_is_named_in_a_note():
    error = await both_raise(ValueError("of the body"), BACKGROUND)
    assert error.__notes__ == [
        "meanwhile, in the background: ZeroDivisionError('of the background')"
    ]


async def test_law_16_an_error_of_the_body_that_only_tells_of_the_background_is_replaced():
    told = RuntimeError("the background has failed")
    told.__cause__ = BACKGROUND
    assert await both_raise(told, BACKGROUND) is BACKGROUND
    group = ExceptionGroup("two calls", [told, ValueError("and another one")])
    assert await both_raise(group, BACKGROUND) is BACKGROUND
