/** GET /health, /health/liveness, /health/readiness. */
import { createHealthHandler } from "../lib/processor.ts";

export const handler = createHealthHandler();
