"""The sample of the HTTP and WebSocket design: a page starts a scan, which calls it back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from helpers import node
from helpers.gateway_tools import hosting

import trio_rpc
from trio_rpc.gateway import Gateway, Message


class Models:
    """The back end of the sample, whose work runs in a thread."""

    @trio_rpc.method(raises=(FileNotFoundError,))
    async def scan_models(
        self,
        scan_dir: str,
        callback1: Callable[[str], Awaitable[None]],
        callback2: Callable[[float], Awaitable[None]],
    ) -> dict[str, object]:
        if not await trio.Path(scan_dir).is_dir():
            raise FileNotFoundError("Scan directory not found")

        def background_task() -> list[str]:
            models = sorted(path.name for path in Path(scan_dir).iterdir())
            for number, name in enumerate(models, 1):
                trio.from_thread.run(callback1, name)
                trio.from_thread.run(callback2, number / len(models))
            return models

        return {"models": await trio.to_thread.run_sync(background_task)}

    @trio_rpc.method(name="start-task")
    async def start_task(
        self,
        data: str,
        callback1: Callable[[str], Awaitable[None]],
        callback2: Callable[[str], Awaitable[None]],
    ) -> str:
        await callback1(f"{data} has begun")
        await callback2(f"{data} is nearly done")
        return f"{data} is done"


@pytest.fixture
def models(tmp_path):
    for name in ("large.bin", "small.bin"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


async def test_the_sample_scan_runs_in_a_thread_of_a_host_with_other_routes(models):
    """The Python program of the first original design runs with this library."""
    gateway = Gateway(Models())
    app = FastAPI(lifespan=lambda _: gateway.run())

    @app.get("/health")
    async def health() -> str:
        return "well"

    app.mount("/", gateway)
    async with hosting(app) as url:
        message = Message("127.0.0.1", int(url.rpartition(":")[2]))
        async with message.connect():
            found, shares = [], []
            callbacks = {"callback1": found.append, "callback2": shares.append}
            result = await message.post("scan_models", {"scan_dir": str(models)}, callbacks)
            assert result == {"models": ["large.bin", "small.bin"]}
            assert found == ["large.bin", "small.bin"]
            assert shares == [0.5, 1.0]
            with pytest.raises(trio_rpc.RemoteError, match="Scan directory not found"):
                await message.post("scan_models", {"scan_dir": str(models / "no")}, callbacks)
        assert await message.get("/health") == "well"


PAGE = """<!doctype html>
<meta charset="utf-8" />
<title>RPC 远程过程调用</title>
<link rel="icon" href="data:," />
<p id="result"></p>
<script type="module">
import { Message } from "/message.js";

// 创建Message实例并连接到服务器
const message = new Message("localhost", PORT);
await message.connect();

// 发送带有回调的RPC请求
const result = await message.post("start-task", { data: "example" }, {
  callback1: (data) => {
    console.log("收到callback1回调:", data);
  },
  callback2: (data) => {
    console.log("收到callback2回调:", data);
  }
});
console.log(result);

const scan = (scan_dir) => message.post("scan_models", { scan_dir }, {
  callback1: (name) => console.log("模型:", name),
  callback2: (share) => console.log("进度:", share),
});
console.log((await scan(MODELS)).models.join());
await scan("/nowhere").catch((error) => console.log("请求错误:", error.message));
message.close();
document.getElementById("result").textContent = "完成";
</script>
"""
"""The page of the design, with its comments; the calls of the design's server follow."""


@pytest.mark.slow
async def test_the_programs_of_the_design_run_in_a_browser(chromium, models, tmp_path):
    """Its client in Chromium, its server in FastAPI: a page served beside the calls of its thread."""
    app = FastAPI(lifespan=lambda _: gateway.run())
    gateway = Gateway(Models())

    @app.get("/", response_class=HTMLResponse)
    async def page(request: Request) -> str:
        return PAGE.replace("PORT", str(request.url.port)).replace(
            "MODELS", json.dumps(str(models))
        )

    app.mount("/", gateway)
    async with hosting(app) as url:

        def use() -> list[str]:
            lines: list[str] = []
            tab = chromium.new_page("about:blank")
            tab.on("console", lambda line: lines.append(line.text))
            tab.goto(url.replace("127.0.0.1", "localhost"))
            tab.locator("#result", has_text="完成").wait_for()
            assert tab.errors == []
            tab.close()
            return lines

        assert await chromium.run(use) == [
            "收到callback1回调: example has begun",
            "收到callback2回调: example is nearly done",
            "example is done",
            "模型: large.bin",
            "进度: 0.5",
            "模型: small.bin",
            "进度: 1",
            "large.bin,small.bin",
            "请求错误: Scan directory not found",
        ]


@node.needs_node
async def test_the_sample_page_awaits_a_post_with_two_callbacks(tmp_path):
    """The TypeScript program of the first original design runs with this library."""
    script = """
    const message = new Message(host, port);
    await message.connect();
    const result = await message.post("start-task", { data: "example" }, {
      callback1: (data) => {
        report(["received callback1", data]);
      },
      callback2: (data) => {
        report(["received callback2", data]);
      },
    });
    report(result);
    message.close();
    """
    assert await node.run(tmp_path, script, Gateway(Models())) == [
        ["received callback1", "example has begun"],
        ["received callback2", "example is nearly done"],
        "example is done",
    ]
