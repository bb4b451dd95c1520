/** An invocation in a process of its own: says it is ready, waits for the word, tells how it went. Arguments: url, slot, queue pop size. */
import { connectPg } from "../../../lib/database/pg.ts";
import { countWaiting } from "../../../lib/sql/tasks.ts";
import { invoke, nothing, SCHEMA, settingsOf } from "./ours.ts";

const [url, slot, queuePopSize] = process.argv.slice(2);
const database = connectPg({ url: url!, schema: SCHEMA });
await database.query(countWaiting, {});
process.once("message", async () => {
  const report = await invoke(database, [nothing.handle(() => {})], {
    slot: Number(slot),
    settings: settingsOf(Number(queuePopSize)),
  });
  await database.close();
  process.send!({ succeeded: report.succeeded });
  process.disconnect();
});
process.send!("ready");
