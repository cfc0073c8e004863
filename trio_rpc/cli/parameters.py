"""The types of arguments that several commands have."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from cyclopts import Parameter

from trio_rpc.cli.connecting import Connection

__all__ = ["DEFAULT_CONNECTION", "Json", "Metadata", "Several", "Switch"]

Switch: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
Json: TypeAlias = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
Metadata: TypeAlias = Annotated[list[str] | None, Parameter(name="--metadata", negative="")]
Several: TypeAlias = Annotated[list[str] | None, Parameter(negative="")]

DEFAULT_CONNECTION: Final = Connection()
