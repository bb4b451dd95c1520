/** Wakes through AWS Lambda: an asynchronous invocation of the processor function. */
import { InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import { StintError } from "./errors.ts";

/** What a call says: sit down on this seat, or on the lowest free one. */
export type WakeEvent = { readonly slot: number; readonly woken: true } | { readonly wake: true };

const CALL_MS = 3000;

/**
 * Calls a processor function by name or ARN; answers once Lambda has accepted the event.
 * The caller's role needs lambda:InvokeFunction on it. `endpoint` is Lambda's own unless told otherwise.
 * @throws StintError wake_failed, with Lambda's reason
 */
export function lambdaWake(
  functionName: string,
  options: { endpoint?: string } = {},
): (event: WakeEvent) => Promise<void> {
  // A wake that comes late is worth nothing: ticks and the next exchange make up for a lost one.
  const client = new LambdaClient({ ...options, maxAttempts: 2 });
  return async (event) => {
    const command = new InvokeCommand({
      FunctionName: functionName,
      InvocationType: "Event",
      Payload: Buffer.from(JSON.stringify(event)),
    });
    try {
      await client.send(command, { abortSignal: AbortSignal.timeout(CALL_MS) });
    } catch (error) {
      throw new StintError("wake_failed", `${functionName} could not be called: ${String(error)}`);
    }
  };
}
