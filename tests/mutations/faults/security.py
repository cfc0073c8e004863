"""Faults that admit an unauthorised peer, or disclose data to one."""

from __future__ import annotations

from ..fault import fault

TLS = "channels/test_tls.py"
WEBSOCKET = "channels/test_websocket.py"
REFUSALS = "gateway/test_refusals.py"
FAULTS_TEST = "services/test_faults.py"

FAULTS = (
    fault(
        "the text of a Goodbye forges lines of the log",
        "session/driver.py",
        "why = one_line(message.message, 1000)",
        "why = message.message",
        "session/test_opening.py",
    ),
    fault(
        "credentials that a refusal shows forge lines of the log",
        "channels/carriers.py",
        "why = one_line(text_of(exc))",
        "why = text_of(exc)",
        "session/test_opening.py",
    ),
    fault(
        "the reason of a refused channel forges lines of the log",
        "channels/forwarding/driver.py",
        "_failing(Refused, one_line(reason, MAX_TEXT))",
        "_failing(Refused, reason)",
        "channels/test_forwarding.py",
    ),
    fault(
        "the text of a server that does not resume forges lines of the log",
        "channels/resumable/client.py",
        'one_line(answer.rest.decode(errors="replace"))',
        'answer.rest.decode(errors="replace")',
        "faults/test_resumable.py",
    ),
    fault(
        "the reason of a WebSocket's end forges lines of the log",
        "channels/websocket/channel.py",
        "one_line(closed.reason or closed.name)",
        "closed.reason or closed.name",
        "session/test_end_records.py",
    ),
    fault(
        "an authenticate that returns False admits the peer",
        "session/driver.py",
        "    if answer is not None:\n",
        "    if False:\n",
        "session/test_authenticating.py",
    ),
    fault(
        "a misspelt error_detail sends exception texts to peers",
        "services/error_maps.py",
        "    if detail not in get_args(Detail):\n",
        "    if False:\n",
        "session/test_options_checked.py",
    ),
    fault(
        "an authenticate that never returns outlives its session",
        "session/driver.py",
        '            self._authenticating.cancel(reason="the session is over")\n',
        "            pass\n",
        "session/test_authenticating.py",
    ),
    fault(
        "a certificate that is valid for another name is accepted",
        "channels/tls.py",
        "    context = ssl.create_default_context()\n",
        "    context = ssl.create_default_context()\n    context.check_hostname = False\n",
        TLS,
    ),
    fault(
        "the server's certificate is not verified",
        "channels/tls.py",
        "    context = ssl.create_default_context()\n",
        "    context = ssl.create_default_context()\n    context.check_hostname = False\n"
        "    context.verify_mode = ssl.CERT_NONE\n",
        TLS,
    ),
    fault(
        "TLS 1.1 is accepted",
        "channels/tls.py",
        "context.minimum_version = ssl.TLSVersion.TLSv1_2",
        "context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED",
        TLS,
    ),
    fault(
        "the end of a TLS connection without close_notify counts as an orderly end",
        "channels/tls.py",
        "server_hostname=host, https_compatible=https_compatible)",
        "server_hostname=host, https_compatible=True)",
        TLS,
        "channels/test_stream.py",
    ),
    fault(
        "a WebSocket may have any Origin",
        "channels/websocket/channel.py",
        "        if not self._is_allowed(origins, head):\n",
        "        if False:\n",
        WEBSOCKET,
    ),
    fault(
        "a WebSocket may have an Origin that ends with our host",
        "channels/websocket/channel.py",
        'return origin in {f"{scheme}://{_host(head)}" for scheme in ("http", "https")}',
        "return origin.endswith(_host(head))",
        WEBSOCKET,
    ),
    fault(
        "a WebSocket with two Origin headers is accepted by the first one",
        "channels/websocket/channel.py",
        "        if len(origins) > 1:\n            return False\n",
        "",
        WEBSOCKET,
    ),
    fault(
        "the gateway accepts an Origin that ends with its host",
        "gateway/server/checks.py",
        'origin.lower() not in (f"http://{host}", f"https://{host}")',
        "not origin.lower().endswith(host)",
        REFUSALS,
        "gateway/test_gateway.py",
    ),
    fault(
        "the gateway accepts any Host header",
        "gateway/server/checks.py",
        "if self._hosts is not None and _name_of(host) not in self._hosts:",
        "if False:",
        REFUSALS,
    ),
    fault(
        "a POST needs no content type, so that forms of other sites can send it",
        "gateway/server/checks.py",
        '    if kind != "application/json":\n',
        "    if False:\n",
        REFUSALS,
    ),
    fault(
        "Origin and Host are not checked on a WebSocket that resumes",
        "gateway/server/websocket_endpoint.py",
        "            self._state.checks.check(websocket.headers)\n",
        "            if is_new:\n                self._state.checks.check(websocket.headers)\n",
        REFUSALS,
        "gateway/test_gateway.py",
        "gateway/test_clients.py",
    ),
    fault(
        "a client's session can be resumed with any token",
        "gateway/server/websocket_endpoint.py",
        'or not client.owns(str(message.get("token")))',
        "",
        REFUSALS,
        "gateway/test_gateway.py",
        "gateway/test_clients.py",
    ),
    fault(
        "any token may start calls of any client",
        "gateway/server/http_endpoints.py",
        "        elif not owner.owns(token):\n",
        "        elif False:\n",
        REFUSALS,
    ),
    fault(
        "a POST without a token is accepted",
        "gateway/server/http_endpoints.py",
        "            if isinstance(owner, JobCaller) or not self._state.legacy_clients:\n",
        "            if False:\n",
        REFUSALS,
    ),
    fault(
        "a WebSocket opens without an identity",
        "gateway/server/websocket_endpoint.py",
        "            await self._state.authenticate(websocket)\n",
        "",
        "gateway/test_identity.py",
    ),
    fault(
        "results are given to callers without an identity",
        "gateway/server/http_endpoints.py",
        "        await self._state.authenticate(request)\n        held",
        "        held",
        "gateway/test_identity.py",
    ),
    fault(
        "the identity is checked for pages of other sites as well",
        "gateway/server/http_endpoints.py",
        "        self._state.checks.check(request.headers)\n"
        "        seen = await self._state.authenticate(request)\n        method",
        "        seen = await self._state.authenticate(request)\n"
        "        self._state.checks.check(request.headers)\n        method",
        "gateway/test_identity.py",
    ),
    fault(
        "an undeclared exception is sent with its arguments",
        "services/error_maps.py",
        'is own and self._detail != "none"',
        "is own",
        FAULTS_TEST,
    ),
    fault(
        "a method whose name begins with an underscore can be registered",
        "services/decorators.py",
        'if name.startswith("_") or not NAME.fullmatch(name):',
        "if not NAME.fullmatch(name):",
        "services/test_decorators.py",
    ),
    fault(
        "task_status can be passed as an argument by the peer",
        "services/signatures.py",
        "        if self._extra_keywords is None or name == TASK_STATUS or name in self._taken:\n",
        "        if self._extra_keywords is None or name in self._taken:\n",
        "services/test_signatures.py",
    ),
    fault(
        "a context variable set by a handler is visible to later handlers",
        "session/dispatch.py",
        "        return copy_of(self.context if call.parent_call is None else call.parent_call.context)\n",
        "        if call.parent_call is None:\n            return self.context\n"
        "        return copy_of(call.parent_call.context)\n",
        "session/test_contexts.py",
    ),
    fault(
        "handlers share the context of decimal",
        "util/contexts.py",
        "    if _DECIMAL in context:\n",
        "    if False:\n",
        "session/test_contexts.py",
    ),
    fault(
        "handlers see the precision of decimals that the program sets after it opened the session",
        "session/driver.py",
        "        self._core.incoming.context = copy_of(copy_context())\n",
        "        self._core.incoming.context = copy_context()\n",
        "session/test_contexts.py",
    ),
    fault(
        "authenticate changes the precision of decimals for all",
        "session/driver.py",
        "        own_decimal_context()  # the other variables are this task's own already\n",
        "",
        "session/test_contexts.py",
    ),
    fault(
        "handlers of a gateway share the context of decimal",
        "gateway/server/call.py",
        "        own_decimal_context()\n",
        "",
        "gateway/test_gateway_handlers.py",
    ),
)
