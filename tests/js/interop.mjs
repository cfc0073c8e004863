/**
 * The cases by which gRPC's implementations are compared, and the service that they call, as in
 * tests/helpers/interop.py. `rpc` is session.js, which the importer has loaded.
 */

const UP_SIZES = [27_182, 8, 1_828, 45_904];
const DOWN_SIZES = [31_415, 9, 2_653, 58_979];
const [LARGE_UP, LARGE_DOWN] = [271_828, 314_159];
const SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n";
const KEY = "x-grpc-test-echo-initial";
const VALUE = "test_initial_metadata_value";
const AT_ONCE = 16;
const SOAK_CALLS = 50;
const SOAK_SESSIONS = 5;

/** Makes the service. `running_now` counts handlers that do not end by themselves. */
export function interopService(rpc) {
  let running = 0;
  const status = ([code, message]) => new rpc.RemoteError("Status", message, { args: [code, message] });
  const counted = async (work) => {
    running += 1;
    try {
      return await work();
    } finally {
      running -= 1;
    }
  };
  return {
    running_now: () => running,
    empty_call: () => undefined,
    unary_call(payload, size, given = null) {
      if (given) throw status(given);
      return new Uint8Array(size);
    },
    streaming_input: (payloads) =>
      counted(async () => {
        let sum = 0;
        for await (const payload of payloads) sum += payload.length;
        return sum;
      }),
    async *streaming_output(sizes) {
      for (const size of sizes) yield new Uint8Array(size);
    },
    full_duplex: rpc.duplex(({ readable, writable }) =>
      counted(async () => {
        const writer = writable.getWriter();
        for await (const [size, payload, given] of readable) {
          if (given) throw status(given);
          await writer.write(new rpc.Tuple(new Uint8Array(size), payload.length));
        }
        await writer.close();
      }),
    ),
    echo_metadata: rpc.withCall((call) => call.metadata[KEY] ?? null),
    stream_metadata: rpc.duplex(
      rpc.withCall(async (call, { writable }) => {
        await writable.getWriter().write(call.metadata[KEY] ?? null);
      }),
    ),
    sleep: rpc.withCall((call) =>
      counted(
        () =>
          new Promise((_, reject) => {
            call.signal.addEventListener("abort", () => reject(call.signal.reason));
          }),
      ),
    ),
  };
}

function equal(found, wanted) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`found ${left?.slice(0, 200)}, not ${right.slice(0, 200)}`);
}

/** Returns the error with which a promise is rejected. */
async function failure(promise) {
  const value = await promise.then(
    (value) => ({ value }),
    (error) => ({ error }),
  );
  if (!("error" in value)) throw new Error(`it did not fail: ${JSON.stringify(value)}`);
  return value.error;
}

const running = (session) => session.call("test.running_now");
const duplex = (session, method, options) => {
  const streams = session.duplex(`test.${method}`, [], options);
  streams.ended.catch(() => {}); // the cases look at it later
  return { ...streams, writer: streams.writable.getWriter(), reader: streams.readable.getReader() };
};

async function largeUnary(session) {
  const answer = await session.call("test.unary_call", [new Uint8Array(LARGE_UP), LARGE_DOWN]);
  equal([answer.constructor.name, answer.length], ["Uint8Array", LARGE_DOWN]);
  equal(answer.every((byte) => byte === 0), true);
}

async function statusAndMessage(session, message) {
  const told = ({ typeName, args, fate }) => [typeName, args, fate];
  const wanted = ["Status", [2, message], "stopped"];
  const call = session.call("test.unary_call", [new Uint8Array(), 0, [2, message]]);
  equal(told(await failure(call)), wanted);
  const { writer, reader, ended } = duplex(session, "full_duplex");
  await writer.write([0, new Uint8Array(), [2, message]]);
  await failure(reader.read());
  equal(told(await failure(ended)), wanted);
}

async function unimplemented(session, name) {
  const { name: kind, fate } = await failure(session.call(name));
  equal([kind, fate], ["MethodNotFound", "not started"]);
}

/** The cases by name. Each is a function of a session, and of a function that opens another one. */
export const CASES = {
  async empty_unary(session) {
    equal(await session.call("test.empty_call"), null);
  },
  large_unary: largeUnary,
  async client_streaming(session) {
    async function* payloads() {
      for (const size of UP_SIZES) yield new Uint8Array(size);
    }
    equal(await session.call("test.streaming_input", [payloads()]), 74_922);
  },
  async server_streaming(session) {
    const sizes = [];
    for await (const payload of session.stream("test.streaming_output", [DOWN_SIZES])) {
      sizes.push(payload.length);
    }
    equal(sizes, DOWN_SIZES);
  },
  async ping_pong(session) {
    const { writer, reader, ended } = duplex(session, "full_duplex");
    for (const [at, size] of UP_SIZES.entries()) {
      await writer.write([DOWN_SIZES[at], new Uint8Array(size), null]);
      const [payload, length] = (await reader.read()).value;
      equal([payload.length, length], [DOWN_SIZES[at], size]);
    }
    await writer.close();
    equal((await reader.read()).done, true);
    await ended;
  },
  async empty_stream(session) {
    const { writer, reader, ended } = duplex(session, "full_duplex");
    await writer.close();
    equal((await reader.read()).done, true);
    await ended;
  },
  async custom_metadata(session) {
    const options = { metadata: { [KEY]: VALUE } };
    equal(await session.call("test.echo_metadata", [], options), VALUE);
    const { reader, close } = duplex(session, "stream_metadata", options);
    equal((await reader.read()).value, VALUE);
    await close();
    equal(await session.call("test.echo_metadata"), null);
  },
  status_code_and_message: (session) => statusAndMessage(session, "test status message"),
  special_status_message: (session) => statusAndMessage(session, SPECIAL),
  unimplemented_method: (session) => unimplemented(session, "test.unimplemented_call"),
  unimplemented_service: (session) => unimplemented(session, "unimplemented_service.empty_call"),
  async cancel_after_begin(session) {
    const stop = new AbortController();
    const payloads = new ReadableStream(); // it never has an item
    const { signal } = stop;
    const call = failure(session.call("test.streaming_input", [payloads], { signal }));
    while (!(await running(session)));
    stop.abort();
    equal((await call).name, "AbortError");
    equal(await running(session), 0);
  },
  async cancel_after_first_response(session) {
    const stop = new AbortController();
    const { writer, reader, ended } = duplex(session, "full_duplex", { signal: stop.signal });
    await writer.write([DOWN_SIZES[0], new Uint8Array(UP_SIZES[0]), null]);
    equal((await reader.read()).value[0].length, DOWN_SIZES[0]);
    stop.abort();
    equal((await failure(ended)).name, "AbortError");
    equal(await running(session), 0);
  },
  async timeout_on_sleeping_server(session) {
    equal((await failure(session.call("test.sleep", [], { timeoutMs: 1 }))).name, "TimeoutError");
    equal(await running(session), 0);
  },
  async concurrent_large_unary(session) {
    await Promise.all(Array.from({ length: AT_ONCE }, () => largeUnary(session)));
  },
  async rpc_soak(session) {
    for (let number = 0; number < SOAK_CALLS; number += 1) await largeUnary(session);
  },
  async channel_soak(_session, open) {
    for (let number = 0; number < SOAK_SESSIONS; number += 1) {
      const session = await open();
      await largeUnary(session);
      await session.close();
    }
  },
};

/** Runs all cases over sessions of `open`, and returns "ok" or an error for each name. */
export async function runCases(open) {
  const outcomes = {};
  for (const [name, run] of Object.entries(CASES)) {
    const session = await open();
    try {
      await run(session, open);
      equal(session.statistics, { callsOut: 0, callsIn: 0 });
      await session.ping();
      outcomes[name] = "ok";
    } catch (error) {
      outcomes[name] = String(error?.stack ?? error);
    }
    await session.close();
  }
  return outcomes;
}
