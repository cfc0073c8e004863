"""The parameters of a method that arguments from the wire can fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, NamedTuple

from trio_rpc.services.converters import make_reader

__all__ = ["Parameters", "WireParameter"]


class WireParameter:
    """One parameter that can be filled from the wire."""

    __slots__ = ("adapted", "annotation", "by_name", "convert", "name", "required")

    def __init__(self, parameter: Parameter, annotation: Any, adapted: Any) -> None:
        self.name = parameter.name
        self.required = parameter.default is Parameter.empty
        self.by_name = parameter.kind is not Parameter.POSITIONAL_ONLY
        self.annotation = annotation
        self.adapted = adapted
        self.convert = make_reader(adapted)


class Parameters(NamedTuple):
    """The parameters that can be filled from the wire; ``*args`` and ``**kwargs`` come last."""

    positional: Sequence[WireParameter]
    named: Mapping[str, WireParameter]
    more: WireParameter | None
    others: WireParameter | None

    @property
    def all(self) -> Sequence[WireParameter]:
        """The parameters that have a name, each once."""
        return list({one.name: one for one in (*self.positional, *self.named.values())}.values())
