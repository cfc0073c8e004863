import trio
import trio_rpc


class Oven:
    @trio_rpc.method
    async def bake(self, cake: str, minutes: float) -> str:
        try:
            await trio.sleep(minutes * 60)
            return f"a {cake} cake"
        finally:
            print(f"{cake}: the oven is off", flush=True)


if __name__ == "__main__":
    trio.run(trio_rpc.serve, {"oven": Oven()}, "tcp://127.0.0.1:5000")
