// The types of session.js need no library beyond those of es2022. Compiled by .ci/run.
import { connect, type Session } from "./session.js";

export async function use(): Promise<number> {
  const session: Session = await connect("wss://example.org/rpc", { resume: true });
  const scope = session.openScope();
  await scope.close();
  await session.close();
  return session.statistics.callsIn;
}
