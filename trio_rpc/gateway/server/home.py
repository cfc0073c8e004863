"""The instance of a gateway that holds a client or a call: their ids begin with its name."""

from __future__ import annotations

import uuid

from trio_rpc.nats.names import check_name

__all__ = ["ALONE", "Home"]


class Home:
    """The name of this instance, its home, in the ids of its clients and calls.

    An id is ``NAME~UUID``, or only ``UUID`` if the gateway is the only instance. No name has a
    tilde.

    Args:
        name: the name; None if the gateway is the only instance.

    Attributes:
        name: the same name; "" for None.

    Raises:
        ValueError: the name is not valid.
    """

    def __init__(self, name: str | None) -> None:
        self.name = "" if name is None else check_name(name, "a home")

    def new_id(self) -> str:
        """Return an id that cannot be guessed."""
        return f"{self.name}~{uuid.uuid4()}" if self.name else str(uuid.uuid4())

    def of(self, some_id: str) -> str | None:
        """Return the part of an id before its tilde if it can only belong to another instance.

        A stranger may have made it up, so it may be any text. None for an id that this instance has
        made, or could have made, and for an id without a home.
        """
        name, tilde, _ = some_id.partition("~")
        return name if self.name and tilde and name != self.name else None

    def has_made(self, some_id: str) -> bool:
        """Return whether an id begins with the name of this instance, now or before a restart."""
        return bool(self.name) and some_id.startswith(f"{self.name}~")


ALONE = Home(None)
"""The home of a gateway that is the only instance."""
