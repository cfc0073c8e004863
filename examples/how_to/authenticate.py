import hmac
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import trio
import trio_rpc

TOKENS = {"ann": "s3cret-of-ann", "bob": "s3cret-of-bob"}  # from a file or a database
WRITERS = {"ann"}


class Forbidden(trio_rpc.CallError):
    """This user may not call this method."""


users = weakref.WeakKeyDictionary[trio_rpc.Session, str]()
user = ContextVar[str]("user")


async def authenticate(session: trio_rpc.Session, credentials: object) -> None:
    match credentials:
        case {"user": str(name), "token": str(token)} if name in TOKENS:
            if hmac.compare_digest(token.encode(), TOKENS[name].encode()):
                users[session] = name
                return
    raise trio_rpc.Refused("unknown user or wrong token")


async def authorise(call: trio_rpc.Call, proceed: Callable[[], Awaitable[object]]) -> object:
    name = users[call.session]
    if call.method == "notes.add" and name not in WRITERS:
        raise Forbidden(f"{name} may not call {call.method}")
    user.set(name)  # the handler sees it, and no other handler does
    return await proceed()


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    @trio_rpc.method
    async def read(self) -> list[str]:
        return self.notes

    @trio_rpc.method(raises=(Forbidden,))
    async def add(self, text: str) -> None:
        self.notes.append(f"{user.get()}: {text}")


async def use(url: str, name: str, token: str) -> None:
    try:
        async with trio_rpc.connect(url, credentials={"user": name, "token": token}) as session:
            notes = session.proxy("notes", Notes)
            await notes.add("hello")
            print(name, "reads", await notes.read())
    except trio_rpc.Refused as exc:
        print(name, "is refused:", exc)
    except Forbidden as exc:
        print(name, "is stopped:", exc)


async def main() -> None:
    async with trio_rpc.open_server(
        {"notes": Notes()}, "tcp://127.0.0.1:0", authenticate=authenticate, filters=[authorise]
    ) as server:
        await use(server.urls[0], "ann", "s3cret-of-ann")
        await use(server.urls[0], "bob", "s3cret-of-bob")
        await use(server.urls[0], "eve", "12345")


if __name__ == "__main__":
    trio.run(main)
