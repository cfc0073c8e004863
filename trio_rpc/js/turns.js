/**
 * Turns of the event loop. Promises alone let neither the page draw nor its timers run, and a browser may
 * deliver many packets in one task. So code that works on arrived data looks at the clock, and waits for
 * the next turn when it has worked for some time.
 */

/** Milliseconds until work waits for the next turn: half a frame at 60 Hz. */
const SLICE = 8;

let began = 0;

/**
 * Returns a promise of the next turn if the work of this one has taken long, and otherwise false. After a
 * pause it has seemingly taken long; that costs one turn. A MessageChannel is not slowed down as timers are.
 */
export const turnIfLate = () => performance.now() - began > SLICE && new Promise((resolve) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    began = performance.now();
    resolve();
  };
  port2.postMessage(0);
});
