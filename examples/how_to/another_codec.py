import zlib
from typing import Any

import trio
import trio_rpc
from trio_rpc.codecs import JsonCodec, ReadBuffer, WriteBuffer
from trio_rpc.testing import open_session_pair

JSON = JsonCodec()
MOST = 16 * 1024 * 1024
"""Bytes that a message may have once it is unpacked."""


class ZippedJson:
    """JSON, compressed."""

    name = "json+zlib"
    version = 1

    def encode(self, message: list[Any], buffer: WriteBuffer) -> None:
        text = WriteBuffer()
        JSON.encode(message, text)
        buffer.write_bytes(zlib.compress(bytes(text)))

    def decode(self, buffer: ReadBuffer) -> Any:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(buffer.read_bytes(), MOST)
        if not unpacker.eof:
            raise ValueError("the message is too large, or cut off")
        return JSON.decode(ReadBuffer(text, buffer.max_values))


class Library:
    @trio_rpc.method
    async def find(self, word: str) -> list[str]:
        return [f"{word} in book {number}" for number in range(1_000)]


async def main() -> None:
    for codec in (None, JSON, ZippedJson()):
        options = {"codec": codec}
        async with open_session_pair(Library(), options_a=options, options_b=options) as (
            _,
            client,
        ):
            found = await client.proxy("", Library).find("tree")
            size = client.statistics().bytes_received
            print(
                f"{getattr(codec, 'name', 'MessagePack')}: {len(found)} results, {size // 1000} kB"
            )


if __name__ == "__main__":
    trio.run(main)
