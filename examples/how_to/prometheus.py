import trio
import trio_rpc
import trio_rpc.otel
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import generate_latest


class Market:
    @trio_rpc.method
    async def price(self, symbol: str) -> float:
        return 12.5


async def main() -> None:
    # prometheus_client.start_http_server(9464) would serve the figures to Prometheus.
    meters = MeterProvider([PrometheusMetricReader()])
    filters = trio_rpc.otel.filters(meter_provider=meters)
    services = {"market": Market()}
    async with trio_rpc.open_server(services, "tcp://127.0.0.1:0", filters=filters) as server:
        trio_rpc.otel.observe_server(server, meters)
        async with trio_rpc.connect(server.urls[0]) as session:
            for symbol in ("BTC", "ETH"):
                await session.call("market.price", symbol)
            for line in generate_latest().decode().splitlines():
                name = line.partition("{")[0]
                if name in {"rpc_server_call_duration_seconds_count", "trio_rpc_server_sessions"}:
                    print(name, line.rpartition(" ")[2])


if __name__ == "__main__":
    trio.run(main)
