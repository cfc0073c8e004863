"""Comparing the class of a service with the interface that an identifier names.

A class fits if each call that the interface allows is one that the class accepts, and each result
of the class is one that the interface declares. So a class may accept more and return less. Where
annotations do not say enough, the class fits: this finds mistakes, and is not a type checker.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args, get_origin

from trio_rpc.services.aliases import UNIONS, bare, class_of, identity
from trio_rpc.services.annotations import is_unresolved
from trio_rpc.services.decorators import Kind, MethodMark
from trio_rpc.services.functions import awaited, function_types
from trio_rpc.services.interfaces import methods_of
from trio_rpc.services.method_parameters import Parameters
from trio_rpc.services.records import is_typed_dict
from trio_rpc.services.signatures import Signature, signature_of

__all__ = ["check_signature", "declared_methods", "fits"]

_WIDER: Final = {bool: (int, float, complex), int: (float, complex), float: (complex,)}
"""The numbers that are accepted where others are annotated."""


def declared_methods(
    cls: type, methods: Mapping[str, tuple[Callable[..., Any], MethodMark]], interface: Any
) -> dict[str, tuple[Callable[..., Any], MethodMark]]:
    """Return the methods of an interface, each of which a class must have.

    Args:
        cls: the class.
        methods: its marked methods.
        interface: the interface.

    Raises:
        TypeError: the class lacks one of them, or has one of another kind.
    """
    declared = methods_of(class_of(interface))
    for name, (_, mark) in declared.items():
        if name not in methods:
            is_unmarked = hasattr(cls, name)
            text = f"its {name!r} is not decorated" if is_unmarked else f"it lacks {name!r}"
            raise _misfit(cls, interface, text)
        kind = methods[name][1].kind
        if kind is not mark.kind:
            text = f"its {name!r} is a {kind.value}, and a {mark.kind.value} in the interface"
            raise _misfit(cls, interface, text)
    return declared


def check_signature(cls: type, interface: Any, name: str, signature: Signature) -> None:
    """Raise TypeError if a method does not accept the declared calls, or returns something else.

    Args:
        cls: the class.
        interface: the interface.
        name: the name of the method.
        signature: the signature of the method of the class.
    """
    declared, mark = methods_of(class_of(interface))[name]
    wanted = signature_of(declared, declared, interface, f"{class_of(interface).__name__}.{name}")
    first = 1 if mark.kind is Kind.DUPLEX else 0  # the channel, which the caller does not pass
    problem = (
        _problem_of_positional(signature.parameters, wanted.parameters, first)
        or _problem_of_named(signature.parameters, wanted.parameters, first)
        or _problem_of_rest(signature, wanted)
        or _problem_of_result(signature, wanted, mark.kind)
    )
    if problem is not None:
        raise _misfit(cls, interface, f"{name}(): {problem}")


def _misfit(cls: type, interface: Any, problem: str) -> TypeError:
    return TypeError(f"{cls.__name__} does not fit {class_of(interface).__name__}: {problem}")


def _problem_of_positional(mine: Parameters, theirs: Parameters, first: int) -> str | None:
    own = mine.positional[first:]
    for index, one in enumerate(theirs.positional[first:]):
        found = own[index] if index < len(own) else mine.more
        if found is None and one.name in mine.named:
            return f"its parameter {one.name!r} cannot be passed by position"
        if found is None:
            return f"it lacks the parameter {one.name!r}"
        if found is not mine.more:
            if one.by_name and found.name != one.name:
                return f"its parameter {found.name!r} is {one.name!r} in the interface"
            if one.by_name and not found.by_name:
                return f"its parameter {one.name!r} cannot be passed by name"
            if found.required and not one.required:
                return f"its parameter {one.name!r} has no default"
        if not fits(one.annotation, found.annotation):
            return _describe_types(one.name, found.annotation, one.annotation)
    return None


def _problem_of_named(mine: Parameters, theirs: Parameters, first: int) -> str | None:
    for name, one in theirs.named.items():
        if one in theirs.positional[:first]:
            continue
        found = mine.named.get(name, mine.others)
        if found is None:
            return f"it lacks the parameter {name!r}"
        if found is not mine.others and found.required and not one.required:
            return f"its parameter {name!r} has no default"
        if not fits(one.annotation, found.annotation):
            return _describe_types(name, found.annotation, one.annotation)
    by_name = (one for one in mine.named.values() if one not in mine.positional)
    for one in (*mine.positional[len(theirs.positional) :], *by_name):
        if one.required and one.name not in theirs.named:
            return f"the interface lacks its parameter {one.name!r}"
    return None


def _problem_of_rest(own: Signature, wanted: Signature) -> str | None:
    mine, theirs = own.parameters, wanted.parameters
    if theirs.more is not None and mine.more is None:
        return f"it lacks *{theirs.more.name}"
    if theirs.others is not None and mine.others is None:
        return f"it lacks **{theirs.others.name}"
    if wanted.takes_task_status and not own.takes_task_status:
        return "it lacks the parameter 'task_status'"
    return None


def _describe_types(name: str, own: Any, wanted: Any) -> str:
    return f"its parameter {name!r} is {_shown(own)}, and {_shown(wanted)} in the interface"


def _problem_of_result(own: Signature, wanted: Signature, kind: Kind) -> str | None:
    if kind is Kind.NOTIFICATION:
        return None
    mine, theirs = _answer(own, kind), _answer(wanted, kind)
    if fits(mine, theirs) and (kind is not Kind.DUPLEX or fits(theirs, mine)):
        return None
    what = "items are" if kind.is_opened else "result is"
    return f"its {what} {_shown(mine)}, and {_shown(theirs)} in the interface"


def _answer(signature: Signature, kind: Kind) -> Any:
    """Return the annotation of the result, or of the items; Any where it cannot be resolved."""
    try:
        if kind.is_opened:
            return signature.item_annotation(duplex=kind is Kind.DUPLEX)
        return awaited(signature.annotation("return"))
    except TypeError as exc:
        if not is_unresolved(exc):
            raise
        return Any


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


# ── annotations ──────────────────────────────────────────────────────────────────────────────────


def fits(narrow: Any, wide: Any) -> bool:
    """Return whether values of one annotation are values of another, as far as this can be known.

    Values are copied when they are sent, so a ``list[bool]`` is also a ``list[int]``.
    """
    narrow, wide = _plain(narrow), _plain(wide)
    if identity(narrow) == identity(wide) or not (_is_known(narrow) and _is_known(wide)):
        return True
    if get_origin(narrow) in UNIONS:
        return all(fits(one, wide) for one in get_args(narrow))
    if get_origin(narrow) is Literal:
        return all(_value_fits(one, wide) for one in get_args(narrow))
    if get_origin(wide) in UNIONS:
        return any(fits(narrow, one) for one in get_args(wide))
    if get_origin(wide) is Literal:
        return False
    if function_types(narrow) is not None or function_types(wide) is not None:
        return function_types(narrow) is not None and function_types(wide) is not None
    return _class_fits(narrow, wide)


def _plain(annotation: Any) -> Any:
    annotation = bare(annotation)
    return types.NoneType if annotation is None else annotation


def _is_known(annotation: Any) -> bool:
    """Return whether an annotation says which values it has."""
    origin = get_origin(annotation) or annotation
    if origin in UNIONS:
        return all(map(_is_known, map(_plain, get_args(annotation))))
    if origin is Literal:
        return True
    return isinstance(origin, type) and origin not in (Any, object) and not is_typed_dict(origin)


def _value_fits(value: Any, wide: Any) -> bool:
    """Return whether one value of a ``Literal`` is a value of an annotation."""
    wide = _plain(wide)
    if get_origin(wide) in UNIONS:
        return any(_value_fits(value, one) for one in get_args(wide))
    if get_origin(wide) is Literal:
        return value in get_args(wide)
    return fits(type(value), wide)


def _class_fits(narrow: Any, wide: Any) -> bool:
    cls, other = get_origin(narrow) or narrow, get_origin(wide) or wide
    if getattr(other, "_is_protocol", False):
        return True
    if not issubclass(cls, other):
        return other in _WIDER.get(cls, ())
    mine, theirs = get_args(narrow), get_args(wide)
    if not mine or not theirs or Ellipsis in (*mine, *theirs):
        return not mine or not theirs or fits(mine[0], theirs[0])
    if len(mine) != len(theirs):
        return cls is not other
    return all(map(fits, mine, theirs))
