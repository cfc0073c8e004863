"""The other end of a session, as this end knows it."""

from __future__ import annotations

import trio

from trio_rpc.channels.optional import to_process

__all__ = ["Peer"]


class Peer:
    """The other end of a session, and its process, if this program has started it.

    Args:
        name: its name in logs and errors.
        channel: the channel to it.

    Attributes:
        name: its name in logs and errors.
    """

    __slots__ = ("_process", "name")

    def __init__(self, name: str, channel: trio.abc.Channel[bytes]) -> None:
        self.name = name
        self._process = to_process(channel)

    def __repr__(self) -> str:
        return f"<trio_rpc.Peer {self.name}>"

    @property
    def pid(self) -> int | None:
        """The id of the process that :func:`trio_rpc.open_process` started; None without one."""
        return None if self._process is None else self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code of that process; minus the number of the signal, if one has killed it.

        None without such a process, and while it runs. It is known when the block of
        :func:`trio_rpc.open_process` is over.
        """
        return None if self._process is None else self._process.returncode
