// The types of session.js accept right uses and refuse wrong ones. Compiled by .ci/run.
import { connect, method, named, RemoteError, type RemoteCall, type ItemStream, withCall } from "./session.js";

interface Market {
  price(symbol: string): RemoteCall<number>;
  ticks(symbol: string): ItemStream<{ price: number }>;
}

export async function use(): Promise<void> {
  await using session = await connect("wss://example.org/rpc", {
    services: {
      window: {
        confirm: method((text: string) => text.length > 0, { text: "string" }),
        wait: withCall(async (call, text: string) => call.call("market.wait", [text], { signal: call.signal })),
      },
    },
    resume: true,
  });
  const market = session.proxy<Market>("market", { timeoutMs: 1000 });
  const price: number = await market.price("BTC");
  for await (const tick of market.ticks("BTC")) console.log(tick.price + price);
  // @ts-expect-error a symbol is a string
  await market.price(5);
  // @ts-expect-error there is no such method
  await market.nope();
  // @ts-expect-error not an option
  await session.call("market.price", ["BTC"], { timeout: 1 });
  const anything = session.proxy("market");
  await anything.order("BTC", named({ amount: 2 }));
  for await (const tick of anything.ticks("BTC")) console.log(tick);
  const chat = anything.chat.duplex("lobby");
  await chat.writable.getWriter().write("hello");
  session.addEventListener("state", (event) => console.log(event.detail === "resumed"));
  await session.call<string>("market.name").catch((error: unknown) => {
    if (error instanceof RemoteError) console.log(error.typeName, error.notes, error.fate);
  });
}
