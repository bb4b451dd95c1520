/** What an operator does from a terminal. */
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { statsSchema } from "../lib/stats-schema.ts";
import { openDatabase, reset } from "./support/database.ts";
import { enqueueRaw, failure, register, Speaker } from "./support/exchange.ts";
import { startStint, stint, until } from "./support/stint.ts";

describe("stint", async () => {
  const db = await openDatabase("pg");
  const run = (...args: string[]) => stint(args, { DATABASE_URL: db.url });
  const ok = async (...args: string[]) => {
    const ended = await run(...args);
    expect(ended, args.join(" ")).toMatchObject({ code: 0, stderr: "" });
    return ended.stdout;
  };
  const audit = () => db.sql("SELECT who, action, count FROM audit ORDER BY id");
  beforeAll(async () => void (await run("stats")));
  beforeEach(async () => {
    await reset(db);
    await register(db, "r1", { greet: { maxAttempts: 1 } });
  });

  /** 1 failed, 2 and 3 wait. */
  async function some() {
    await enqueueRaw(db, "greet", 1, { payloads: [{ secret: "hush" }] });
    const speaker = new Speaker(db);
    await speaker.say({ results: (await speaker.say()).tasks.map((task) => failure(task)), want: 0 });
    await enqueueRaw(db, "greet", 2);
  }

  test("tasks list and show: tables for people, JSON for programs, no payload unasked", async () => {
    await some();
    const [listed, page, shown, whole] = await Promise.all([
      ok("tasks", "list", "--state", "failed"),
      ok("tasks", "list", "--json", "--limit", "1"),
      ok("tasks", "show", "1"),
      ok("tasks", "show", "1", "--payload", "--json"),
    ]);
    expect(listed).toMatch(/^id\s+state\s+identifier.*\n1\s+failed\s+greet\s+50\s.*Error: no\n$/);
    expect(JSON.parse(page)).toMatchObject({ tasks: [{ id: "3", state: "waiting" }], next: "3" });
    expect(shown).toMatch(/state +failed\n/);
    expect(shown).toContain("attempt 1\nError: no");
    expect(shown).not.toContain("hush");
    expect(JSON.parse(whole)).toMatchObject({ payload: { secret: "hush" }, runs: [{ attempt: 1 }] });
  });

  test("actions: a filter says how many first, and acts with --yes; each leaves a row", async () => {
    await some();
    expect(await ok("tasks", "cancel", "--identifier", "greet")).toBe(
      "2 would be concerned. Again with --yes does it.\n",
    );
    expect(await audit()).toEqual([]);
    expect(await ok("tasks", "cancel", "--identifier", "greet", "--yes")).toBe("cancel: 2.\n");
    expect(await ok("tasks", "retry", "1", "2")).toBe("retry: 2.\n");
    expect(await ok("tasks", "set-priority", "1", "--priority", "high")).toBe("set_priority: 1.\n");
    expect(await ok("tasks", "delete", "3", "--json")).toBe(
      '{"action":"delete","dryRun":false,"count":1,"done":true}\n',
    );
    expect(await audit()).toEqual([
      { who: "cli", action: "cancel", count: 2 },
      { who: "cli", action: "retry", count: 2 },
      { who: "cli", action: "set_priority", count: 1 },
      { who: "cli", action: "delete", count: 1 },
    ]);
    expect(await ok("tasks", "retry", "1", "999")).toBe(
      "retry: 0, as no task with one of these ids is in a state for it.\n",
    );
    expect(await ok("tasks", "cancel", "999")).toBe("cancel: 0, as no task with this id is in a state for it.\n");
    expect(await ok("tasks", "retry", "--state", "failed", "--yes")).toBe("retry: 0.\n");
  });

  test("pause, resume, slots, stats", async () => {
    await some();
    expect(await ok("pause", "greet")).toBe("greet is paused now.\n");
    const [slots, stats, json] = await Promise.all([ok("slots"), ok("stats"), ok("stats", "--json")]);
    expect(slots).toMatch(/^database\s+slot\s+state.*\n\s+0\s+0\s+working\s+1\s/);
    expect(stats).toMatch(/\ngreet\s+2\s+0\s+0\s+0\s+1\s.*paused\n/);
    expect(statsSchema.parse(JSON.parse(json)).paused).toEqual(["greet"]);
    expect(await ok("resume", "greet")).toBe("greet is not paused now.\n");
    expect(await ok("resume", "greet")).toBe("greet was not paused before.\n");
  });

  test("what producers store cannot steer the terminal", async () => {
    await enqueueRaw(db, "evil\u001b[2J\u009b\u202e", 1, { key: "a\u0007\nb", onDuplicate: "keep" });
    for (const out of await Promise.all([ok("tasks", "list"), ok("tasks", "show", "1"), ok("stats")])) {
      expect(out).toContain("evil");
      expect(out.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    }
  });

  test("wrong usage is one line with a code", async () => {
    const wrong = [
      ["filter_missing", "tasks", "delete", "--yes"],
      ["filter_unexpected", "tasks", "delete", "1", "--state", "failed"],
      ["option_invalid", "tasks", "delete", "all"],
      ["option_invalid", "tasks", "list", "--from", "yesterday"],
      ["task_not_found", "tasks", "show", "99"],
    ] as const;
    const all = await Promise.all(wrong.map(([, ...args]) => run(...args)));
    for (const [place, [code, ...args]] of wrong.entries()) {
      const ended = all[place]!;
      expect(ended, args.join(" ")).toMatchObject({ code: 1, stdout: "" });
      expect(ended.stderr).toMatch(new RegExp(`^${code}: .+\n$`));
    }
    expect(await run("tasks", "list", "--state", "lost")).toMatchObject({ code: 2 });
  });

  test("who reads no further, as `head`, ends it without a word", async () => {
    await some();
    const stats = startStint(["stats"], { DATABASE_URL: db.url });
    stats.child.stdout!.destroy();
    expect(await stats.ended).toMatchObject({ code: 0, stderr: "" });
    const top = startStint(["top", "--every", "1"], { DATABASE_URL: db.url });
    await until("a screen", () => top.output().includes("runs in the last full minute"), top);
    top.child.stdout!.destroy();
    expect(await top.ended).toMatchObject({ code: 0, stderr: "" });
  });

  test("top shows it again and again until Ctrl-C", async () => {
    await some();
    const top = startStint(["top", "--every", "1"], { DATABASE_URL: db.url });
    await until("two screens", () => top.output().split("runs in the last full minute").length > 2, top);
    top.child.kill("SIGINT");
    expect(await top.ended).toMatchObject({ code: 0, stderr: "" });
  });
});
