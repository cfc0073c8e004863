"""Functions and streams that arrived with a call, and the Requests that use them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import trio

from trio_rpc.services.decorators import Kind, wire_name
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.calls.callbacks import Callback
from trio_rpc.session.calls.incoming_call import CallSession, IncomingCall
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import OutgoingCall
from trio_rpc.session.streams.items import ItemReceiver
from trio_rpc.session.streams.pulls import FilteredPull

__all__ = ["ReceivedReferences"]


class ReceivedReferences:
    """Makes the local objects of references usable while their call runs.

    Args:
        calls: the outgoing calls; each use of a reference is one.
        nursery: the nursery of the session's tasks, for the filters of pulls.
    """

    def __init__(self, calls: OutgoingCalls, nursery: trio.Nursery) -> None:
        self._calls = calls
        self._nursery = nursery

    def bind(
        self,
        references: Iterable[Callback | ItemReceiver],
        call: IncomingCall,
        owner: IncomingCall,
    ) -> None:
        """Bind the references that arrived with ``call`` to the call that they live with.

        Args:
            references: the references.
            call: the call whose arguments they are.
            owner: the same call, or the call of the remote scope that it is made in.
        """
        for reference in references:
            if isinstance(reference, Callback):
                method = _method(call, f"callback {reference.number}")
                reference.bind(owner, method, self._call_back)
            else:
                method = _method(call, f"stream {reference.number}", Kind.STREAM)
                pull = functools.partial(self._pull, method)
                reference.bind(owner, call.method.name, self._calls, pull)

    async def _call_back(
        self,
        call: IncomingCall,
        method: RemoteMethod,
        number: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call a callback that lives as long as ``call``, which is still running."""
        request = functools.partial(
            self._calls.request, method, args, kwargs, callback=(call, number)
        )
        session = _session_of(call)
        if not session.is_filtered:
            return await request()
        return await session.around(method, args, kwargs, request)

    async def _pull(
        self, method: RemoteMethod, call: IncomingCall, receiver: ItemReceiver
    ) -> OutgoingCall:
        """Open a stream that lives as long as ``call``, which is still running."""
        open_pull = functools.partial(
            self._calls.open, method, (), {}, listener=receiver, callback=(call, receiver.number)
        )
        session = _session_of(call)
        if not session.is_filtered:
            return await open_pull()
        run_filters = functools.partial(session.around, method, (), {})
        receiver.filtered = FilteredPull(self._calls, open_pull, run_filters)
        opened: OutgoingCall = await self._nursery.start(receiver.filtered.run)
        return opened


def _method(call: IncomingCall, name: str, kind: Kind = Kind.METHOD) -> RemoteMethod:
    """Return the remote method that uses a function or stream which arrived with ``call``.

    It may live longer than that call, in a remote scope.
    """
    raises = {wire_name(cls): cls for cls in call.method.raises}
    method = RemoteMethod(_session_of(call), call.method.name, kind, raises)
    method.title = f"{name} of {call.method.name}"
    return method


def _session_of(call: IncomingCall) -> CallSession:
    assert call.session is not None  # noqa: S101 - only the gateway's calls have none
    return call.session
