/** What a producer needs. The processor's side is `stint/processor`. */
export type { Backoff } from "./backoff.ts";
export type { BatchFunction, BatchTask } from "./batch.ts";
export { type Config, type RunMethod, readConfig } from "./config.ts";
export { type ConnectOptions, connectDatabase, type DatabaseTarget } from "./database/connect.ts";
export { DatabaseError } from "./database/failure.ts";
export type { Database, ProducerTransaction } from "./database/port.ts";
export {
  createTaskClient,
  type EnqueueAnswer,
  type EnqueueManyAnswer,
  type TaskClient,
  type TaskClientOptions,
} from "./enqueue.ts";
export type { EnqueueOptions } from "./enqueue-store.ts";
export { type ErrorCode, StintError, TaskBackoffError, TaskCancelError } from "./errors.ts";
export { taskProcessorHealthCheck } from "./health.ts";
export { createLog, type Log } from "./log.ts";
export type { ProducerWake } from "./producer-wake.ts";
export { defineRecurringTask } from "./recurring.ts";
export type { Missed, RecurringDefinition, RecurringOptions } from "./recurring-definition.ts";
export { connectAll } from "./runtime.ts";
export { type MigrationReport, migrate } from "./sql/migrate.ts";
export {
  defineTask,
  PRIORITIES,
  type Priority,
  type TaskContext,
  type TaskDefinition,
  type TaskHandler,
  type TaskOptions,
} from "./task.ts";
