"""Odd but legal JavaScript at one end of a session: every call ends, and no value takes the place of another."""

from __future__ import annotations

import pytest
from helpers import node
from helpers.node_session import FOLDER, run_node, run_session

import trio_rpc

pytestmark = [node.needs_node, pytest.mark.slow]

PAIR = """
class Money { constructor(cents) { this.cents = cents; } }
function read(cents) {
  if (cents === -1) throw new Error("negative");
  if (cents === -2) throw undefined;
  return new Money(cents);
}
const types = [{ code: 64, class: Money, write: (money) => money.cents, read }];
async function pair(services, options = {}) {
  const { port1, port2 } = new MessageChannel();
  const [here, there] = [new rpc.PortChannel(port1), new rpc.PortChannel(port2)];
  const opened = await Promise.all([
    rpc.openSession(here, { types, ...options }), rpc.openSession(there, { types, services }),
  ]);
  return [...opened, () => (port1.close(), port2.close())];
}
"""


def error_with(change: str) -> str:
    return f'(() => {{ const error = new Error("why"); {change}; throw error; }})'


ODD_ERRORS = {
    "a name with half of a surrogate pair": error_with(r'error.name = "\ud800"'),
    "a very long name": error_with('error.name = "x".repeat(50000)'),
    "a name that is a symbol": error_with('error.name = Symbol("x")'),
    "a message that is an object": error_with("error.message = { a: 1 }"),
    "a long message of wide characters": error_with('error.message = "\\u20ac".repeat(10000)'),
    "a RemoteError with such a name": r'(() => { throw new rpc.RemoteError("\ud800", "why"); })',
    "a RemoteError whose name is a number": '(() => { throw new rpc.RemoteError(5, "why"); })',
    "a RemoteError with such a part": """(() => {
      throw new rpc.RemoteError("E", "why", { errors: [new rpc.RemoteError("\\ud800", "part")] });
    })""",
}


@pytest.mark.parametrize("handler", ODD_ERRORS.values(), ids=ODD_ERRORS.keys())
async def test_law_4_a_handler_with_an_odd_error_is_answered(tmp_path, handler):
    script = f"""{PAIR}
    const [session, _, close] = await pair({{ page: {{ fail: {handler} }} }}, {{ limits: {{ maxMessage: 16384 }} }});
    const late = sleep(5000).then(() => ["no answer"]);
    report((await Promise.race([outcome(session.call("page.fail")), late]))[0]);
    report(session.isOpen);
    await session.close();
    close();
    """
    assert await run_node(tmp_path, script) == ["RemoteError", True]


@pytest.mark.parametrize(
    ("cents", "text"), [(-1, "unreadable: negative"), (-2, "unreadable: thrown")]
)
async def test_a_value_that_its_type_cannot_read_is_never_null(tmp_path, cents, text):
    script = f"""{PAIR}
    const ran = [];
    const [session, _, close] = await pair({{ page: {{
      pay: (money) => ran.push(money),
      payBack: (callback) => outcome(callback(new Money({cents}))),
      open: rpc.startable((call) => {{ call.started(new Money({cents})); return 5; }}),
    }} }});
    report(await outcome(session.call("page.pay", [new Money({cents})])));
    report(await session.call("page.payBack", [(money) => ran.push(money)]));
    report((await outcome(session.start("page.open")))[1]);
    report(ran.length);
    await session.close();
    close();
    """
    refused = ["InvalidArguments", text, "not started"]
    reason = text.removeprefix("unreadable: ")
    assert await run_node(tmp_path, script) == [refused, refused, reason, 0]


NAMES_OF_ALL_OBJECTS = ["toString", "constructor", "__proto__", "valueOf"]


async def test_law_15_a_code_that_every_object_has_is_an_unknown_code(tmp_path):
    script = f"""
    const {{ fromMap }} = await import("{(FOLDER / "error_maps.js").as_uri()}");
    for (const code of {[*NAMES_OF_ALL_OBJECTS, "later"]}) report(fromMap({{ code, message: "" }}).fate);
    """
    assert await run_node(tmp_path, script) == ["unknown"] * 5


class Lender:
    @trio_rpc.method
    async def lend(self) -> list[object]:
        page = trio_rpc.current_call().session.proxy("page")

        async def first():
            return 1

        def second():
            return 2

        return [
            await page.call_all({first, second}),
            await page.call_all(frozenset({first})),
            await page.call_keys({first: "a", second: "b"}),
        ]


async def test_functions_in_a_set_and_as_keys_are_functions_in_javascript(tmp_path):
    script = """
    const all = async (functions) => (await Promise.all([...functions].map((one) => one()))).sort();
    const page = { call_all: all, call_keys: (map) => all(map.keys()) };
    const session = await rpc.connect(url, { services: { page } });
    report(await session.call("lender.lend"));
    await session.close();
    """
    assert await run_session(tmp_path, script, {"lender": Lender()}) == [[[1, 2], [1], [1, 2]]]


async def test_functions_in_a_set_and_as_keys_are_sent_by_javascript(tmp_path):
    script = f"""{PAIR}
    const all = async (functions) => (await Promise.all([...functions].map((one) => one()))).sort();
    const [session, _, close] = await pair({{ page: {{ all, keys: (map) => all(map.keys()) }} }});
    report(await session.call("page.all", [new Set([() => 1, () => 2])]));
    report(await session.call("page.keys", [new Map([[() => 1, 0], [() => 2, 0]])]));
    await session.close();
    close();
    """
    assert await run_node(tmp_path, script) == [[1, 2], [1, 2]]


@pytest.mark.parametrize("kind", ["Tuple.from", "new FrozenSet"])
async def test_a_key_of_many_levels_does_not_hold_the_page(tmp_path, kind):
    script = f"""
    const {{ keyOf, Tuple, FrozenSet }} = await import("{(FOLDER / "values.js").as_uri()}");
    let value = "a";
    for (let level = 0; level < 29; level++) value = {kind}([value]);
    const began = performance.now();
    keyOf(value);
    report(performance.now() - began < 200);
    const [one, other] = [{kind}(["a", "1 b"]), {kind}(["a1 b", ""])];
    report(keyOf(one) === keyOf(other));
    """
    assert await run_node(tmp_path, script) == [True, False]
