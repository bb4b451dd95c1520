import { expect, test } from "vitest";
import * as z from "zod/mini";
import { createTaskClient, defineTask } from "../lib/index.ts";
import { drainTasks, runHandler, unfinishedTasks } from "../lib/testing.ts";
import { openDatabase } from "./support/database.ts";

const greet = defineTask({ identifier: "greet", payload: z.object({ name: z.string() }), priority: "HIGH" });
const greeted: string[] = [];
const handler = greet.handle(({ name }, { attempt, progress }) => {
  progress({ half: true });
  greeted.push(name);
  return { name, attempt };
});

test("a handler runs alone with a fake context", async () => {
  expect(await runHandler(handler, { name: "Ada" }, { attempt: 2 })).toEqual({
    value: { name: "Ada", attempt: 2 },
    progress: [{ half: true }],
  });
  await expect(runHandler(handler, { name: 7 } as never)).rejects.toMatchObject({ code: "payload_invalid" });
});

test("what was enqueued can be looked at, and the queue drained", async () => {
  const { database } = await openDatabase("pg");
  await createTaskClient({ database }).enqueue(greet, { name: "Grace" }, { key: "k" });
  expect(await unfinishedTasks(database, greet)).toEqual([
    {
      id: "1",
      identifier: "greet",
      payload: { name: "Grace" },
      priority: 25,
      scheduledFor: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      key: "k",
      serialKey: null,
      running: false,
    },
  ]);
  expect(await drainTasks({ database, handlers: [handler] })).toMatchObject({ succeeded: 1 });
  expect(greeted).toContain("Grace");
  expect(await unfinishedTasks(database)).toEqual([]);
});
