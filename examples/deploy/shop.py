import os

import trio_rpc
import trio_rpc.health


class Shop:
    @trio_rpc.method
    async def buy(self, item: str) -> str:
        return f"one {item} from process {os.getpid()}"


services = {"shop": Shop(), "health": trio_rpc.health.Health()}
