"""A block raises one exception where a nursery would raise a group."""

from __future__ import annotations

import pytest
import trio

from trio_rpc.util.one_exception import one_exception


async def test_law_16_a_single_exception_is_raised_without_a_group_and_keeps_its_context():
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
    """Make a block's body and background raise at once, and return the block's exception."""

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
                raise own  # noqa: TRY301 - as a block's body does
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
async def test_law_16_one_exception_is_raised_when_both_body_and_background_fail(
    own, other, expected
):
    error = await both_raise(own, other)
    assert error is expected or type(error) is expected


async def test_law_16_a_note_names_the_exception_of_the_background():
    error = await both_raise(ValueError("of the body"), BACKGROUND)
    assert error.__notes__ == [
        "meanwhile, in the background: ZeroDivisionError('of the background')"
    ]


async def test_law_16_an_error_of_the_body_caused_by_the_background_is_replaced_by_its_cause():
    consequence = RuntimeError("the background has failed")
    consequence.__cause__ = BACKGROUND
    assert await both_raise(consequence, BACKGROUND) is BACKGROUND
    group = ExceptionGroup("two calls", [consequence, ValueError("and another one")])
    assert await both_raise(group, BACKGROUND) is BACKGROUND
