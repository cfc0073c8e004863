"""Services: decorators, method tables, signatures, proxies, errors. No tasks, no I/O."""

from trio_rpc.services.decorators import (
    Kind,
    MethodMark,
    duplex,
    method,
    notification,
    stream,
    wire_name,
)
from trio_rpc.services.error_maps import BUILTINS, Detail, ErrorMap, from_error, refusal, to_error
from trio_rpc.services.introspection import describe
from trio_rpc.services.proxies import Caller, Proxy, RemoteMethod
from trio_rpc.services.signatures import Signature
from trio_rpc.services.tables import (
    BoundMethod,
    Table,
    build_table,
    is_per_session,
    missing,
    resolve,
    wrong_kind,
)

__all__ = [
    "BUILTINS",
    "BoundMethod",
    "Caller",
    "Detail",
    "ErrorMap",
    "Kind",
    "MethodMark",
    "Proxy",
    "RemoteMethod",
    "Signature",
    "Table",
    "build_table",
    "describe",
    "duplex",
    "from_error",
    "is_per_session",
    "method",
    "missing",
    "notification",
    "refusal",
    "resolve",
    "stream",
    "to_error",
    "wire_name",
    "wrong_kind",
]
