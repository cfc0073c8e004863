from collections.abc import AsyncGenerator

import trio
import trio_rpc


class NoSuchJob(Exception):
    """There is no job with this key."""


class JobFailed(Exception):
    """The job has ended with an error."""


class Job:
    """One job, which runs to its end, whether or not a client watches it."""

    def __init__(self, frames: int) -> None:
        self.scope = trio.CancelScope()
        self._frames = frames
        self._done = 0
        self._problem = ""
        self._is_over = False
        self._changed = trio.Event()

    async def run(self) -> None:
        with self.scope:
            try:
                while self._done < self._frames:
                    await trio.sleep(0.01)  # stands for the work
                    self._done += 1
                    self._tell()
            except Exception as exc:  # noqa: BLE001 - a job that fails must not end the server
                self._problem = repr(exc)
        if self.scope.cancelled_caught:
            self._problem = "cancelled"
        self._is_over = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def progress(self) -> AsyncGenerator[int, None]:
        """Yield the number of frames that are done, now and after each change, to the end."""
        while True:
            changed, is_over = self._changed, self._is_over
            yield self._done
            if is_over:
                break
            await changed.wait()
        if self._problem:
            raise JobFailed(self._problem)


class Jobs:
    """The service. Its jobs run in ``nursery``, which lives longer than the sessions."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._jobs: dict[str, Job] = {}

    @trio_rpc.method
    async def start(self, key: str, frames: int) -> None:
        """Start a job, unless it has been started before: so this is safe to repeat."""
        if key not in self._jobs:
            job = self._jobs[key] = Job(frames)
            self._nursery.start_soon(job.run)

    @trio_rpc.stream(raises=(NoSuchJob, JobFailed))
    def watch(self, key: str) -> AsyncGenerator[int, None]:
        return self._job(key).progress()

    @trio_rpc.method(raises=(NoSuchJob,))
    async def cancel(self, key: str) -> None:
        self._job(key).scope.cancel()

    def _job(self, key: str) -> Job:
        if key not in self._jobs:
            raise NoSuchJob(key)
        return self._jobs[key]


async def watch_a_little(url: str) -> None:
    async with trio_rpc.connect(url) as session:
        jobs = session.proxy("jobs", Jobs)
        await jobs.start("film", 20)
        async with jobs.watch("film") as progress:
            async for done in progress:
                if done >= 2:
                    return


async def watch_to_the_end(url: str, key: str) -> None:
    async with trio_rpc.connect(url) as session:
        jobs = session.proxy("jobs", Jobs)
        await jobs.start(key, 20)
        try:
            async with jobs.watch(key) as progress:
                async for done in progress:
                    if key == "cartoon" and done >= 2:
                        await jobs.cancel(key)
            print(f"{key}: all {done} frames are done")
        except JobFailed as exc:
            print(f"{key}: {exc}")


async def main() -> None:
    async with (
        trio.open_nursery() as nursery,
        trio_rpc.open_server({"jobs": Jobs(nursery)}, "tcp://127.0.0.1:0") as server,
    ):
        await watch_a_little(server.urls[0])
        print("the first client has left")
        await watch_to_the_end(server.urls[0], "film")
        await watch_to_the_end(server.urls[0], "cartoon")


if __name__ == "__main__":
    trio.run(main)
