"""Remote scopes of a pool: on one of its sessions, for the methods of the pool's proxies."""

from __future__ import annotations

from typing import Any

from trio_rpc.services.decorators import Kind
from trio_rpc.services.proxies import Caller, RemoteMethod, remote_method
from trio_rpc.session.calls.outgoing_call import OutgoingCall
from trio_rpc.session.session import Session

__all__ = ["ScopeCaller"]


class ScopeCaller:
    """Makes the calls of a remote scope on one session of a pool.

    Args:
        pool: the pool, whose proxies' methods the scope accepts.
        session: the session.
    """

    def __init__(self, pool: Caller, session: Session) -> None:
        self._pool = pool
        self._session = session

    def __repr__(self) -> str:
        return repr(self._session)

    def invoke(self, method: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call, notify or open outside of the scope."""
        return self._session.invoke(method, args, kwargs)

    def invoke_in(
        self,
        remote_scope: OutgoingCall,
        method: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        kind: Kind | None = None,
    ) -> Any:
        """Call, notify or open in the scope."""
        if kind is not None:
            method = remote_method(self._pool, method, kind)
        return self._session.invoke_in(remote_scope, method, args, kwargs)
