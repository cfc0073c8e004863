"""NATS between programs: a client, channels, topics, and the discovery of instances.

``nats://host,host/service`` is a URL for :func:`trio_rpc.serve` and :func:`trio_rpc.connect`, as
any other. This package has all other features of NATS.
"""

from __future__ import annotations

from trio_rpc.nats.broker import OnMessage, Subscription
from trio_rpc.nats.channel import NatsChannel
from trio_rpc.nats.credentials import Credentials, NKey, Token, UserPassword
from trio_rpc.nats.discovery import InstanceInfo
from trio_rpc.nats.listener import NatsListener
from trio_rpc.nats.nats import Nats, open_nats
from trio_rpc.nats.nats_instances import NatsInstance, NatsInstances
from trio_rpc.nats.nats_options import NatsOptions
from trio_rpc.nats.parser import Msg
from trio_rpc.nats.topics import Topic, TopicSubscription

__all__ = [
    "Credentials",
    "InstanceInfo",
    "Msg",
    "NKey",
    "Nats",
    "NatsChannel",
    "NatsInstance",
    "NatsInstances",
    "NatsListener",
    "NatsOptions",
    "OnMessage",
    "Subscription",
    "Token",
    "Topic",
    "TopicSubscription",
    "UserPassword",
    "open_nats",
]
