"""The state that all requests of one gateway share: clients, calls, and the bounds of both."""

from __future__ import annotations

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import trio
from starlette.requests import HTTPConnection

from trio_rpc.errors import Refused
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.call import CallSettings, GatewayCall
from trio_rpc.gateway.server.checks import Refusal, RequestChecks, closing
from trio_rpc.gateway.server.elsewhere import Elsewhere
from trio_rpc.gateway.server.forms import Forms
from trio_rpc.gateway.server.home import ALONE, Home
from trio_rpc.gateway.server.memory_budget import MemoryBudget, MemoryShare
from trio_rpc.gateway.server.results import Results
from trio_rpc.services.error_maps import Detail
from trio_rpc.services.foreign import check_no_foreign
from trio_rpc.services.tables import BoundMethod, build_table, missing
from trio_rpc.session.http_request import HttpRequest
from trio_rpc.session.session import Filter
from trio_rpc.util.owner import Owner
from trio_rpc.util.raised import text_of

__all__ = ["HOW_TO_RUN", "AuthenticateRequest", "GatewayState"]

logger = logging.getLogger("trio_rpc.gateway")

EXPIRED = 10_000
"""Ids of past clients to remember: a client that returns too late gets 410, an unknown one 403."""

HOW_TO_RUN = (
    "this gateway is not running: enter `async with gateway.run():` in its host's lifespan,"
    " for example FastAPI(lifespan=lambda app: gateway.run())"
)


AuthenticateRequest: TypeAlias = Callable[[HttpRequest], Awaitable[Any]]
"""An async function that returns the identity of a request, or raises :class:`trio_rpc.Refused`."""


class GatewayState:
    """The clients and the calls of a gateway, while it runs and between two runs.

    Args:
        services: as for :class:`~trio_rpc.gateway.Gateway`, like the others.
        filters: the filters.
        limits: the limits.
        checks: the checks of Host and Origin.
        legacy_clients: whether a client may call without a token.
        error_detail: how much of an undeclared exception clients see.
        authenticate: checks each request.
        home: the name of this instance.

    Attributes:
        limits: the limits.
        table: the methods by their full names.
        forms: they read and write the values of each method that can be called.
        settings: the settings that all calls share.
        nursery: the nursery of clients and calls; None while the gateway does not run.
        is_draining: whether no new client and no new call is accepted.
        clients: the clients by id, including disconnected ones.
        results: the calls that may outlive their clients.
        unsent: bounds the bytes that are held for all clients.
        bodies: bounds the bytes of the requests.
        works: the running calls.
        direct: the number of calls that are answered in their own request.
        waiting: the number of requests that wait for news of a call.
        unidentified: the number of WebSockets that have not said which client they resume.
        home: the name of this instance.
        elsewhere: the other instances; None if this one is not joined with others.
    """

    def __init__(
        self,
        services: object,
        *,
        filters: Sequence[Filter],
        limits: GatewayLimits,
        checks: RequestChecks,
        legacy_clients: bool,
        error_detail: Detail,
        authenticate: AuthenticateRequest | None = None,
        home: Home = ALONE,
    ) -> None:
        self.limits = limits
        self.table = build_table(services)
        check_no_foreign(self.table, ", in a gateway", "make it a dataclass")
        self.forms = {
            name: Forms(method) for name, method in self.table.items() if not method.kind.is_opened
        }
        self.settings = CallSettings(tuple(filters), error_detail, most=limits.max_nodes, home=home)
        self.checks = checks
        self.home = home
        self.elsewhere: Elsewhere | None = None
        self.legacy_clients = legacy_clients
        self._authenticate = authenticate
        self.nursery: trio.Nursery | None = None
        self.owner: Owner
        self.is_draining = False
        self.clients: dict[str, Client] = {}
        self.results = Results(limits)
        self.unsent = MemoryBudget(limits.max_unsent)
        self.bodies = MemoryBudget(limits.max_bodies)
        # Bound: max_works for each of max_clients clients, plus max_results, plus max_direct.
        self.works: set[GatewayCall] = set()
        self.direct = 0
        self.waiting = 0
        self.unidentified = 0
        self._expired: OrderedDict[str, None] = OrderedDict()
        self._complaints: set[str] = set()
        self._idle = trio.Event()

    # ── running ──────────────────────────────────────────────────────────────────────────────

    def start(self, nursery: trio.Nursery) -> None:
        """Accept clients and calls, which run in ``nursery``."""
        self.nursery = nursery
        self.owner = Owner("this gateway, while it runs,")
        self.is_draining = False

    def stop(self) -> None:
        """Accept nothing more, and cancel all clients and calls."""
        nursery, self.nursery = self.nursery, None
        self.is_draining = True
        if self.elsewhere is not None:
            self.elsewhere.stop()
        if nursery is not None:
            nursery.cancel_scope.cancel(reason="the gateway is closing")

    async def drain(self) -> None:
        """Refuse new calls and new clients, and wait until all running calls have ended."""
        if self.nursery is not None:
            self.owner.check()
        self.is_draining = True
        await trio.lowlevel.checkpoint()
        while self.works:
            self._idle = trio.Event()
            await self._idle.wait()

    def running(self) -> trio.Nursery:
        """Return the nursery of clients and calls. Raises Refusal if the gateway does not run."""
        if self.nursery is None:
            if self.is_draining:  # a connection may outlive the gateway for a moment
                raise closing()
            self.complain(HOW_TO_RUN)
            raise Refusal(503, HOW_TO_RUN)
        self.owner.check()  # a server in another run would wake this one's tasks
        return self.nursery

    def accepting(self) -> trio.Nursery:
        """Return the nursery. Raises Refusal if the gateway does not run, or is closing."""
        nursery = self.running()
        if self.is_draining:
            raise closing()
        return nursery

    @property
    def is_ready(self) -> bool:
        """Whether new clients and new calls are accepted."""
        return self.nursery is not None and not self.is_draining

    def complain(self, of: str) -> None:
        """Log a mistake in the hosting of the gateway. Log it once, because requests repeat it."""
        if of not in self._complaints:
            self._complaints.add(of)
            logger.error(of)

    async def authenticate(self, connection: HTTPConnection) -> HttpRequest:
        """Return a request with its identity. Raises Refusal if ``authenticate`` refuses it."""
        request = HttpRequest(
            method=connection.scope.get("method", "GET"),
            path=connection.scope["path"].removeprefix(connection.scope.get("root_path", "")),
            headers=connection.headers,
            cookies=connection.cookies,
            address=None if connection.client is None else connection.client.host,
        )
        if self._authenticate is None:
            return request
        try:
            identity = await self._authenticate(request)
        except Refused as exc:
            raise Refusal(401, text_of(exc)) from None
        except Exception as exc:  # noqa: BLE001 - it is a bug of the application
            text = "authenticate failed, so a request was refused"
            self.settings.complaints.log(logging.ERROR, text, exc_info=exc)
            raise Refusal(500, "the identity could not be checked") from None
        return dataclasses.replace(request, identity=identity)

    # ── calls ────────────────────────────────────────────────────────────────────────────────

    def method(self, name: str) -> BoundMethod:
        """Return the method with this full name. Raises Refusal if it cannot be called."""
        method = self.table.get(name)
        if method is None:
            raise Refusal(404, str(missing(self.table, name)))
        if method.kind.is_opened:
            raise Refusal(
                404,
                f"{method.name} is a {method.kind.value}, which a gateway does not carry: open it"
                " over a session, with session.js in a browser or with trio_rpc.connect",
            )
        return method

    def ended(self, body: MemoryShare, work: GatewayCall) -> None:
        """Forget a call that has ended, and the bytes of its body."""
        body.close()
        self.results.ended(work)
        self.works.discard(work)
        if not self.works:
            self._idle.set()

    # ── clients ──────────────────────────────────────────────────────────────────────────────

    def has_expired(self, client_id: str) -> bool:
        """Return whether this was the id of a client that has ended."""
        return client_id in self._expired

    def make_room(self) -> bool:
        """End the longest-disconnected client without running calls; return whether there was one.

        This prevents clients that connect and leave from using up ``max_clients``.
        """
        idle = [
            client
            for client in self.clients.values()
            if client.is_disconnected and not client.works
        ]
        if not idle:
            return False
        longest = min(idle, key=lambda client: client.deadline)
        longest.end("a new client needed its place")
        self._forget(longest)
        return True

    async def keep(self, client: Client, task_status: trio.TaskStatus[None]) -> None:
        """Run a client until it has left, or has been disconnected for too long."""
        try:
            await client.run(task_status)
        finally:
            self._forget(client)

    def _forget(self, client: Client) -> None:
        if self.clients.pop(client.id, None) is not None:
            self._expired[client.id] = None
            if len(self._expired) > EXPIRED:
                self._expired.popitem(last=False)
