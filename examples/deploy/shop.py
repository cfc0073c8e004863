import os

import trio_rpc


class Shop:
    @trio_rpc.method
    async def buy(self, item: str) -> str:
        return f"one {item} from process {os.getpid()}"


services = {"shop": Shop()}
