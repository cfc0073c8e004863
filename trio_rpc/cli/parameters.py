"""The types of arguments that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias

from cyclopts import Parameter, Token

from trio_rpc.cli.connecting import Connection

__all__ = ["DEFAULT_CONNECTION", "WHOLE", "Json", "Metadata", "Patience", "Several", "Switch"]

Switch: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number. By default, 2.5 would be read as 2."""
    number = float(tokens[0].value)
    if not number.is_integer():
        raise ValueError(f"{tokens[0].value} is not a whole number")
    return int(number)


WHOLE: Final = Parameter(converter=_whole)

Patience: TypeAlias = Annotated[float, Parameter(show_default=False)]  # "inf" says little
Json: TypeAlias = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Metadata: TypeAlias = Annotated[list[str] | None, Parameter(name="--metadata", negative="")]
Several: TypeAlias = Annotated[list[str] | None, Parameter(negative="")]

DEFAULT_CONNECTION: Final = Connection()
