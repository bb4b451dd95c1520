import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/postgres.ts"],
    pool: "forks",
    // What a test waits for comes, on a busy machine later: these are for what never does.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    reporters: ["default", "./test/support/count-reporter.ts"],
  },
});
