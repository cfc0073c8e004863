"""Faults against the laws of docs/guarantees.md: at least two for each of them."""

from __future__ import annotations

from ..fault import fault

LAWS = "session/test_laws.py"
BOUNDS = "session/test_laws_bounds.py"
NAMES = "session/test_law_13.py"
ORDER = "session/test_laws_order.py"
CALLBACKS = "session/test_callbacks.py"
GARBAGE = "session/test_garbage.py"

FAULTS = (
    fault(
        "a callback given in a remote scope loses the exceptions that its method declares",
        "session/streams/references.py",
        '                method = _method(call, f"callback {reference.number}")\n',
        '                method = _method(owner, f"callback {reference.number}")\n',
        "session/test_remote_scopes.py",
    ),
    fault(
        "a stream given in a remote scope loses the exceptions that its method declares",
        "session/streams/references.py",
        '                method = _method(call, f"stream {reference.number}", Kind.STREAM)\n',
        '                method = _method(owner, f"stream {reference.number}", Kind.STREAM)\n',
        "session/test_remote_scopes.py",
    ),
    fault(
        "the line about an abandoned call does not name the other end",
        "session/calls/outgoing.py",
        "            self._name,\n",
        '            "it",\n',
        "session/test_log_limits.py",
    ),
    fault(
        "an orderly end is shown with the code done, which says nothing",
        "session/driver.py",
        '    if code == "done" and why:\n',
        "    if False:\n",
        "session/test_goodbye_codes.py",
    ),
    fault(
        "a Goodbye without a text and without a special code is shown as nothing",
        "session/driver.py",
        '    if code == "done" and why:\n',
        '    if code == "done":\n',
        "session/test_goodbye_codes.py",
    ),
    # ── 1: one tree ──
    fault(
        "law 1: a call made inside a handler does not name its parent",
        "session/calls/context.py",
        'context["parent"] = call.id',
        "pass",
        LAWS,
    ),
    fault(
        "law 1: a call is sent as a child of another session's call with the same id",
        "session/calls/context.py",
        "if call.session is session and call.id in incoming:",
        "if call.id in incoming:",
        LAWS,
        "session/test_laws_edges.py",
    ),
    fault(
        "law 1: a callback is not registered with its call",
        "session/dispatch.py",
        "            parent_call.callbacks.add(call)\n",
        "",
        LAWS,
        CALLBACKS,
    ),
    # ── 2: cancel is a message ──
    fault(
        "law 2: a cancelled caller continues before its handler has ended",
        "session/calls/outgoing.py",
        "            if not call.abandon_on_cancel:\n",
        "            if call.abandon_on_cancel:\n",
        LAWS,
    ),
    fault(
        "law 2: Cancel is sent more than once",
        "protocol/protocol.py",
        "        self.outgoing[call] = OutgoingState.CANCELLING\n",
        "",
        LAWS,
        "protocol/test_protocol_calls.py",
    ),
    fault(
        "law 2: the reason of a cancellation is not sent",
        "protocol/protocol.py",
        "m.Cancel(call, None if reason is None else for_people(reason))",
        "m.Cancel(call, None)",
        LAWS,
    ),
    fault(
        "law 2: closing a stream's block does not cancel its generator",
        "session/calls/outgoing.py",
        "                self._expect_end(call)\n                await self._wait_for_end(call)\n",
        "                self._expect_end(call)\n",
        "session/test_streams.py",
    ),
    # ── 3: a result that won the race ──
    fault(
        "law 3: a result that won the race is dropped",
        "session/calls/outgoing.py",
        "if type(answer) is not m.Reply or call.interrupted:",
        "if type(answer) is not m.Reply or call.raise_cancel:",
        LAWS,
    ),
    fault(
        "law 3: an error that won the race is dropped",
        "session/calls/outgoing.py",
        "if code in _CANCELLED_CODES and call.raise_cancel is not None:",
        "if call.raise_cancel is not None:",
        LAWS,
    ),
    # ── 4: exactly one terminal message ──
    fault(
        "law 4: a call can be answered a second time",
        "protocol/protocol.py",
        "        self.incoming[call] = _ANSWERED\n",
        "",
        "protocol/test_protocol_calls.py",
    ),
    fault(
        "law 4: a call that was cancelled gets no terminal message",
        "protocol/protocol.py",
        "_UNANSWERED = (IncomingState.RUNNING, IncomingState.CANCELLED)",
        "_UNANSWERED = (IncomingState.RUNNING,)",
        LAWS,
    ),
    fault(
        "law 4: the failure of a notification is answered",
        "session/dispatch.py",
        "        if number < 0:\n            self._end_notification()\n",
        "        if False:\n            self._end_notification()\n",
        LAWS,
    ),
    # ── 5: deadlines travel ──
    fault(
        "law 5: a deadline is not sent",
        "session/calls/outgoing.py",
        'context = {**(context or {}), "deadline": max(0.0, deadline - now), "sent": now}',
        "pass",
        LAWS,
    ),
    fault(
        "law 5: a Request that has waited for its whole deadline is run",
        "session/dispatch.py",
        "        if left <= 0:\n",
        "        if False:\n",
        "session/test_ages.py",
    ),
    fault(
        "a call that the peer makes within our own waits for the place that our handler holds",
        "session/dispatch.py",
        "            waits = waits and not is_within(context, self._protocol.outgoing)\n",
        "",
        "session/test_overload.py",
        hangs=True,
    ),
    fault(
        "a call that was read late begins before all arrived packets are read",
        "session/dispatch.py",
        "            waits |= self._ages.subtract(context, self.now) > BEHIND\n",
        "            self._ages.subtract(context, self.now)\n",
        "session/test_overload.py",
    ),
    fault(
        "an overloaded server queues calls that it cannot answer in time",
        "session/load.py",
        "        return calls * self._interval <= left / 2\n",
        "        return True\n",
        "session/test_overload.py",
    ),
    fault(
        "one gap between two calls makes a server refuse hundreds of calls that have time",
        "session/load.py",
        "        if self._waited < left * SEEN:\n            return True\n",
        "",
        "session/test_overload.py",
    ),
    fault(
        "a session that ends keeps its turn",
        "session/reader.py",
        "        self._load.leave(self._take_turn)\n",
        "",
        "session/test_overload.py",
        hangs=True,
    ),
    fault(
        "law 5: the sleep of a caller's computer makes its Requests old",
        "session/calls/ages.py",
        "        if silence >= SILENCE and silence >= age:  # (2)\n",
        "        if False:\n",
        "session/test_ages.py",
    ),
    fault(
        "law 5: the handler's scope does not get the deadline",
        "session/dispatch.py",
        'scope.deadline = call.started + call.context["deadline"]',
        "pass",
        LAWS,
    ),
    fault(
        "law 5: a deadline counts from the handler's start, not from its Request's arrival",
        "session/dispatch.py",
        'scope.deadline = call.started + call.context["deadline"]',
        'scope.deadline = trio.current_time() + call.context["deadline"]',
        LAWS,
        ORDER,
        "session/test_handlers.py",
        "session/test_laws_edges.py",
    ),
    fault(
        "law 5: a call in a scope whose deadline has passed is sent",
        "session/calls/outgoing.py",
        "if deadline != math.inf and deadline <= trio.current_time():",
        "if False:",
        LAWS,
    ),
    fault(
        "law 5: a caller gets an error for its own deadline",
        "session/calls/outgoing.py",
        '            if code == "deadline":\n                await wait_for_own_deadline(call)\n',
        "",
        LAWS,
    ),
    # ── 6: handlers belong to the session's nursery ──
    fault(
        "law 6: the end of a session leaves its handlers running",
        "session/core.py",
        '        self.incoming.cancel_all(f"the session with {self.name} is over")\n',
        "",
        LAWS,
        hangs=True,
    ),
    fault(
        "law 6: the end of a session leaves callers waiting",
        "session/core.py",
        "        self.outgoing.fail_all()\n",
        "",
        LAWS,
        hangs=True,
    ),
    fault(
        "law 6: a session that has ended still starts handlers",
        "session/reader.py",
        "            if lifecycle.is_over:\n                return None  #",
        "            if False:\n                return None  #",
        LAWS,
        "session/test_laws_edges.py",
    ),
    # ── 7: errors go to the parent ──
    fault(
        "law 7: a handler's KeyboardInterrupt and SystemExit do not end the server",
        "session/handler.py",
        "    return isinstance(exc, Exception)\n",
        "    return True\n",
        LAWS,
    ),
    fault(
        "law 7: any exception of a handler ends its server",
        "session/handler.py",
        "    return isinstance(exc, Exception)\n",
        "    return False\n",
        LAWS,
    ),
    fault(
        "law 7: SystemExit in a group with another error is swallowed",
        "session/handler.py",
        "            raise rest from None\n        return True\n",
        "            pass\n        return True\n",
        "session/test_handlers.py",
    ),
    # ── 8: references die with their scope ──
    fault(
        "law 8: a callback is sent after its handler has ended",
        "session/calls/callbacks.py",
        "        self._within_call = None  # it refers to this callback\n",
        "        pass\n",
        CALLBACKS,
        GARBAGE,
        LAWS,
    ),
    fault(
        "law 8: a stream argument can be pulled after its handler has ended",
        "session/dispatch.py",
        "            reference.expire(call.method.name)\n",
        "            pass\n",
        "session/test_streams.py",
        "session/test_laws_edges.py",
    ),
    fault(
        "law 8: a call returns while its callbacks are running",
        "session/calls/outgoing.py",
        "            while call.callbacks:\n",
        "            while False:\n",
        CALLBACKS,
        LAWS,
        "session/test_races.py",
    ),
    # ── 9: arrival order ──
    fault(
        "law 9: a Cancel in the packet of its Request does not find the handler",
        "session/dispatch.py",
        "        return self._step(call, context, self._call, call)\n",
        "        del self.running[call.id]\n"
        "        step = self._step(call, context, self._call, call)\n"
        "        self.running[call.id] = call\n"
        "        return step\n",
        ORDER,
    ),
    fault(
        "law 9: a handler's deadline also applies to the next handler",
        "session/dispatch.py",
        "        if scope.deadline != math.inf:\n            scope.deadline = math.inf",
        "        if False:\n            scope.deadline = math.inf",
        ORDER,
    ),
    # ── 10: one writer ──
    fault(
        "law 10: two tasks write packets at the same time",
        "channels/stream.py",
        "return not self._guard.is_sending and self._transport.write_nowait(value)",
        "return self._transport.write_nowait(value)",
        "channels/test_stream.py",
        "session/test_laws_edges.py",
    ),
    fault(
        "law 10: a packet that is waiting is overwritten by the next one",
        "channels/packet_writer.py",
        "self._nowait is not None and self._is_woken and self._held is None:\n",
        "self._nowait is not None and self._is_woken:\n",
        "session/test_writer.py",
    ),
    # ── 11: the reader never waits for application code ──
    fault(
        "law 11: the reader waits for handlers",
        "session/reader.py",
        "                if call is not None:\n                    go_on(self)\n",
        "                if call is not None:\n                    pass\n",
        ORDER,
        hangs=True,
    ),
    fault(
        "law 11: calls are sent without credit",
        "session/calls/outgoing.py",
        "        if not self._may_call:\n            await self._wait_for_credit(context)\n        call = self._begin(method, args, kwargs, context, deadline, remote_scope, view)  # (2)\n        if abandon_on_cancel",
        "        call = self._begin(method, args, kwargs, context, deadline, remote_scope, view)  # (2)\n        if abandon_on_cancel",
        ORDER,
    ),
    fault(
        "law 11: a caller that was admitted too early goes to the end of the queue",
        "session/calls/admission.py",
        "waiting.appendleft(task)",
        "waiting.append(task)",
        ORDER,
        "session/test_races.py",
        "session/test_laws_edges.py",
    ),
    fault(
        "law 11: abandoned calls do not count as in-flight calls",
        "session/calls/outgoing.py",
        "return protocol.peer.max_calls - len(protocol.outgoing)",
        "return protocol.peer.max_calls - len(self.calls)",
        ORDER,
        "session/test_laws_edges.py",
    ),
    fault(
        "law 11: the late end of an abandoned call does not admit a waiting caller",
        "session/reader.py",
        "        outgoing.let_callers_in()\n        if lifecycle",
        "        if lifecycle",
        "session/test_laws_edges.py",
    ),
    # ── 12: everything is bounded ──
    fault(
        "law 12: the peer may have any number of calls in flight",
        "protocol/protocol.py",
        "        if len(incoming) >= self.limits.max_calls:\n",
        "        if False:\n",
        BOUNDS,
    ),
    fault(
        "law 12: the peer may send any number of notifications",
        "protocol/protocol.py",
        "        if not self._notifications_granted:\n            raise DecodeError",
        "        if False:\n            raise DecodeError",
        BOUNDS,
    ),
    fault(
        "law 12: calls may be nested to any depth",
        "protocol/protocol.py",
        'if context.get("depth", 0) > self.limits.max_call_depth:',
        "if False:",
        BOUNDS,
    ),
    fault(
        "law 12: a message may be larger than the peer accepts",
        "protocol/protocol.py",
        "        if len(data) > self.peer.max_message:\n",
        "        if False:\n",
        BOUNDS,
    ),
    # ── 13: only decorated methods can be called ──
    fault(
        "law 13: a name is looked up without regard to case",
        "session/dispatch.py",
        "self.table.get(request.method) or self._fallback(request.method, _METHOD)",
        "self.table.get(request.method) or self.table.get(request.method.lower())",
        NAMES,
    ),
    fault(
        "law 13: dots and spaces round a name are ignored",
        "session/dispatch.py",
        "self.table.get(request.method) or self._fallback(request.method, _METHOD)",
        'self.table.get(request.method.strip(". \\t\\n"))',
        NAMES,
    ),
    fault(
        "law 13: a name that is not in the table is looked up as an attribute",
        "session/dispatch.py",
        "        return None, self.table.get(name) or self._fallback(name, _METHOD)\n",
        "        found = self.table.get(name)\n"
        "        if found is None and self.table:\n"
        "            import dataclasses\n"
        "            owner = next(iter(self.table.values()))\n"
        '            function = getattr(owner.function.__self__, name.rpartition(".")[2], None)\n'
        "            if callable(function):\n"
        "                found = dataclasses.replace(owner, function=function)\n"
        "        return None, found\n",
        NAMES,
    ),
    fault(
        "law 13: a notification can be called",
        "session/dispatch.py",
        "is_fitting = method is not None and method.kind is _METHOD",
        "is_fitting = method is not None",
        NAMES,
    ),
    fault(
        "law 13: a notification can be called with a context",
        "session/streams/open.py",
        "    if method.kind is Kind.NOTIFICATION:\n        return False\n",
        "",
        NAMES,
    ),
    fault(
        "law 13: a stream can be called by a Request with a context but without stream",
        "session/streams/open.py",
        'return method.kind.is_opened is ("stream" in context)',
        "return True",
        NAMES,
    ),
    fault(
        "law 13: a method can be called by a Notification",
        "session/dispatch.py",
        "if method is None or method.kind is not _NOTIFICATION or message.problem is not None:",
        "if method is None or message.problem is not None:",
        NAMES,
    ),
    # ── 14: bad input costs the sender ──
    fault(
        "law 14: malformed input is answered, and the session continues",
        "protocol/protocol.py",
        "        except (DecodeError, LocalProtocolError) as exc:\n            raise self._broken(exc) from exc\n",
        "        except (DecodeError, LocalProtocolError):\n            return\n",
        BOUNDS,
    ),
    fault(
        "law 14: a truncated second message of a packet is ignored",
        "wire/codec.py",
        "        if start != len(packet):\n            raise malformed(msgpack.OutOfData())\n",
        "",
        "wire/test_wire_malformed.py",
        BOUNDS,
    ),
    fault(
        "law 14: an item without credit is accepted",
        "protocol/streams.py",
        "        if window is None or window.items <= 0 or window.size <= 0:\n",
        "        if window is None:\n",
        "protocol/test_protocol_streams.py",
    ),
    # ── 15: every failed call has a known fate ──
    fault(
        "law 15: a call whose Request was sent has the fate NOT_STARTED",
        "session/calls/outgoing.py",
        "Fate.NOT_STARTED if never_left else Fate.UNKNOWN",
        "Fate.NOT_STARTED",
        BOUNDS,
        "session/test_ends.py",
    ),
    fault(
        "law 15: a call whose Request was never sent has an unknown fate",
        "session/calls/outgoing.py",
        "Fate.NOT_STARTED if never_left else Fate.UNKNOWN",
        "Fate.UNKNOWN",
        BOUNDS,
        "session/test_ends.py",
    ),
    fault(
        "law 15: a started value that cannot be decoded has no fate",
        "session/calls/outgoing_call.py",
        "        raise DecodeError(message.problem, fate=Fate.STOPPED)\n    convert",
        "        raise DecodeError(message.problem)\n    convert",
        "session/test_task_status.py",
        "session/test_laws_edges.py",
    ),
    fault(
        "law 15: a result of the wrong type has no fate",
        "session/calls/outgoing_call.py",
        "        exc.fate = Fate.STOPPED  # the handler has returned, or called started()\n",
        "",
        BOUNDS,
    ),
    # ── 16: Trio's conventions ──
    fault(
        "law 16: notify is not a checkpoint",
        "session/calls/outgoing.py",
        "        await trio.lowlevel.checkpoint()\n        context = call_context(self.session, self.protocol.incoming)\n        if self._notifications is None",
        "        context = call_context(self.session, self.protocol.incoming)\n        if self._notifications is None",
        BOUNDS,
    ),
    fault(
        "law 16: aclose does not wait for running handlers",
        "session/core.py",
        "            not self.incoming.running\n            and not self.incoming.waiting\n",
        "            not self.incoming.waiting\n",
        BOUNDS,
        "session/test_ends.py",
    ),
    fault(
        "law 16: aclose, cancelled, leaves the session open",
        "session/lifecycle.py",
        "            await self.wait_closed()\n        finally:\n            self.stop()\n",
        "            await self.wait_closed()\n        finally:\n            pass\n",
        BOUNDS,
    ),
    # ── 17: no block outlives its session ──
    fault(
        "law 17: the body of a block is not cancelled when its session ends",
        "session/opening.py",
        'with cancelled_at_end(core) if on_end == "cancel" else contextlib.nullcontext():',
        "with contextlib.nullcontext():",
        "session/test_blocks.py",
        hangs=True,
    ),
    fault(
        'law 17: the body is cancelled despite on_end="keep"',
        "session/opening.py",
        'with cancelled_at_end(core) if on_end == "cancel" else contextlib.nullcontext():',
        "with cancelled_at_end(core):",
        "session/test_blocks.py",
    ),
    # ── ended sessions and calls leave no reference cycles ──
    fault(
        "garbage: a session that has ended keeps its parts",
        "session/driver.py",
        "            core.lifecycle.channel_closed()\n            core.let_go()\n",
        "            core.lifecycle.channel_closed()\n",
        GARBAGE,
    ),
    fault(
        "garbage: the cause of a session's end refers to frames of the session",
        "session/lifecycle.py",
        "                keep_all_places(cause, _is_not_ours)",
        "                pass",
        GARBAGE,
    ),
    fault(
        "garbage: the stored error of a handshake is raised itself",
        "session/lifecycle.py",
        "            return _anew(self.cause)\n",
        "            return self.cause\n",
        GARBAGE,
    ),
    fault(
        "garbage: a call that has ended keeps its stream argument",
        "session/calls/outgoing_call.py",
        "listener, self.listener = self.listener, None",
        "listener = self.listener",
        GARBAGE,
    ),
)
