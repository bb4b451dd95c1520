/** Calling a processor on AWS, for producers: `stint/wake`. Apart from `stint`, so that only who calls bundles the clients. */
export { lambdaWake, type WakeEvent } from "./wake-lambda.ts";
export { MOST_DELAY_MS, queueWake } from "./wake-queue.ts";
