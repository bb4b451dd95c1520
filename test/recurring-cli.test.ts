import { expect, test } from "vitest";
import { openDatabase } from "./support/database.ts";
import { stint } from "./support/stint.ts";

test("stint recurring lists, runs, disables and enables", async () => {
  const db = await openDatabase("pg");
  const recurring = (...args: string[]) => stint(["recurring", ...args], { DATABASE_URL: db.url });
  expect((await recurring("list")).stdout).toBe("No processor has stored a schedule yet.\n");
  await db.sql(
    `INSERT INTO recurring_task (identifier, schedule, next_at) VALUES ('beat', '{"every":"1h"}', '2999-01-01T00:00:00Z')`,
  );
  expect((await recurring("list")).stdout).toMatch(
    /^identifier +schedule +state +next .*\nbeat +every 1h +enabled +2999-01-01T00:00:00\.000Z +- +- +- +0\n$/,
  );
  expect(await recurring("run", "beat")).toMatchObject({ code: 0, stdout: "beat is due now.\n" });
  expect(await db.sql("SELECT next_at <= clock_timestamp() AS due FROM recurring_task")).toEqual([{ due: true }]);
  expect((await recurring("disable", "beat")).code).toBe(0);
  expect(JSON.parse((await recurring("list", "--json")).stdout)).toEqual([
    expect.objectContaining({ enabled: false, disabledWhy: "OPERATOR" }),
  ]);
  expect(await recurring("run", "beat")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("recurring_not_found"),
  });
  expect((await recurring("enable", "beat")).stdout).toBe("beat is enabled.\n");
});
