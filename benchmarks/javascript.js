/** Measures one client: milliseconds of one call, calls a second, items a second. */
async function measure(rpc, sessionUrl, bareUrl, seconds) {
  const found = {};
  const text = "sixteen letters.";
  const bare = new WebSocket(bareUrl);
  await new Promise((resolve, reject) => Object.assign(bare, { onopen: resolve, onerror: reject }));
  const waiting = [];
  bare.onmessage = (event) => waiting.shift()(event.data);
  const echo = () => new Promise((resolve) => {
    waiting.push(resolve);
    bare.send(text);
  });
  const session = await rpc.connect(sessionUrl);
  const call = () => session.call("echo", [text]);

  async function one(run) {
    const times = [];
    for (let index = 0; index < 100; index++) await run();
    for (const end = performance.now() + 1000 * seconds; performance.now() < end; ) {
      const began = performance.now();
      for (let index = 0; index < 10; index++) await run(); // a browser's clock is coarse
      times.push((performance.now() - began) / 10);
    }
    return times.sort((a, b) => a - b)[times.length >> 1];
  }

  async function many(run) {
    let count = 0;
    const began = performance.now();
    const end = began + 1000 * seconds;
    await Promise.all(Array.from({ length: 64 }, async () => {
      for (; performance.now() < end; count++) await run();
    }));
    return count / ((performance.now() - began) / 1000);
  }

  found.bare_one = await one(echo);
  found.one = await one(call);
  found.bare_many = await many(echo);
  found.many = await many(call);
  const tasks = [];
  const isBrowser = globalThis.PerformanceObserver?.supportedEntryTypes.includes("longtask");
  const observer = isBrowser ? new PerformanceObserver((list) => tasks.push(...list.getEntries())) : null;
  observer?.observe({ entryTypes: ["longtask"] }); // tasks of more than 50 ms
  let longest = 0;
  let isOver = false;
  const turn = new MessageChannel(); // looks at the clock in each turn of the event loop
  let last = performance.now();
  turn.port1.onmessage = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (!isOver) turn.port2.postMessage(null);
    else turn.port1.close();
  };
  turn.port2.postMessage(null);
  const began = performance.now();
  let items = 0;
  for await (const _ of session.stream("count", [100_000])) items++;
  found.items = items / ((performance.now() - began) / 1000);
  isOver = true;
  if (isBrowser) found.longest_task = Math.max(longest, 0, ...tasks.map((task) => task.duration));
  await session.close();
  bare.close();
  return found;
}
