"""Discovery: instances answer ``$SRV.PING``, ``INFO`` and ``STATS``, as NATS's own services do.

So ``nats micro ls`` and other tools list them. The source is the ADR-32 of NATS.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any, Final

from trio_rpc.nats.broker import Broker, Subscription
from trio_rpc.nats.names import check_name, open_subject
from trio_rpc.nats.parser import Msg

__all__ = ["Announcement", "InstanceInfo", "find_instances"]

TYPE: Final = "io.nats.micro.v1."
VERSION: Final = "1.0.0"
VERBS: Final = ("PING", "INFO", "STATS")

MAX_URLS: Final = 16
MAX_INFO: Final = 16 * 1024


class Announcement:
    """Answers the questions of NATS's tools about one instance.

    Args:
        broker: the connection.
        service: the name of the service.
        instance: the name of the instance, which is its id for those tools.

    Attributes:
        urls: the URLs of this process without NATS.
        opened: the number of channels that were opened.
        refused: the number of requests to open one that were refused.
    """

    def __init__(self, broker: Broker, service: str, instance: str) -> None:
        self.urls: tuple[str, ...] = ()
        self.opened = 0
        self.refused = 0
        self._broker = broker
        self._service = service
        self._instance = instance
        self._started = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")

    def start(self) -> list[Subscription]:
        """Answer from now on."""
        return [
            self._broker.subscribe(f"$SRV.{verb}{rest}", self._on_question)
            for verb in VERBS
            for rest in ("", f".{self._service}", f".{self._service}.{self._instance}")
        ]

    def _on_question(self, message: Msg) -> None:
        if not message.reply:
            return
        verb = message.subject.split(".")[1]
        facts: dict[str, Any] = {
            "type": f"{TYPE}{verb.lower()}_response",
            "name": self._service,
            "id": self._instance,
            "version": VERSION,
            "metadata": {"trio_rpc": "1", "urls": " ".join(self.urls)},
        }
        if verb == "INFO":
            facts |= {"description": "served by trio_rpc", "endpoints": [self._endpoint()]}
        elif verb == "STATS":
            counts = {
                "num_requests": self.opened + self.refused,
                "num_errors": self.refused,
                "last_error": "",
                "processing_time": 0,
                "average_processing_time": 0,
            }
            facts |= {"started": self._started, "endpoints": [self._endpoint() | counts]}
        self._broker.publish_nowait(message.reply, json.dumps(facts).encode())

    def _endpoint(self) -> dict[str, Any]:
        return {
            "name": "open",
            "subject": open_subject(self._service),
            "queue_group": "trpc",
            "metadata": {},
        }


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """One instance that serves.

    Attributes:
        service: the name of the service.
        instance: the name of the instance.
        urls: its URLs without NATS; empty if it is reached only through NATS.
    """

    service: str
    instance: str
    urls: tuple[str, ...] = ()


async def find_instances(broker: Broker, service: str, *, seconds: float) -> list[InstanceInfo]:
    """Ask for the instances of a service, and return the ones that answer in time, by name.

    Args:
        broker: the connection.
        service: the name of the service.
        seconds: the time to wait; if there is no instance, this returns at once.
    """
    subject = f"$SRV.INFO.{check_name(service, 'a service')}"
    answers = await broker.gather(subject, seconds=seconds)
    found = {info.instance: info for answer in answers if (info := _read(answer, service))}
    return [found[name] for name in sorted(found)]


def _read(answer: Msg, service: str) -> InstanceInfo | None:
    """Read an answer; None if it is not from a trio_rpc instance."""
    if len(answer.data) > MAX_INFO:
        return None
    try:
        facts = json.loads(answer.data)
        metadata = facts["metadata"]
        if metadata["trio_rpc"] != "1" or facts["name"] != service:
            return None
        instance = check_name(facts["id"], "an instance")
        urls = tuple(str(metadata.get("urls", "")).split()[:MAX_URLS])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return InstanceInfo(service, instance, urls)
