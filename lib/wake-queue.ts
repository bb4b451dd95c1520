/** Wakes at a time, through a queue of SQS that holds a message back. */
import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { StintError } from "./errors.ts";

/** SQS holds a message for 15 minutes at the most. What is due later is reached in several steps. */
export const MOST_DELAY_MS = 900_000;
const SEND_MS = 3000;

/**
 * Sends `{ "wake": true }` to a queue whose event source mapping calls the processor, to be delivered after `delayMs` (0 to 900,000).
 * The caller's role needs sqs:SendMessage on it. `endpoint` is SQS's own unless told otherwise.
 * @throws StintError wake_failed, with the queue's reason
 */
export function queueWake(queueUrl: string, options: { endpoint?: string } = {}): (delayMs?: number) => Promise<void> {
  const client = new SQSClient({ ...options, maxAttempts: 3 });
  return async (delayMs = 0) => {
    const DelaySeconds = Math.ceil(Math.min(Math.max(delayMs, 0), MOST_DELAY_MS) / 1000);
    const command = new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: '{"wake":true}', DelaySeconds });
    try {
      await client.send(command, { abortSignal: AbortSignal.timeout(SEND_MS) });
    } catch (error) {
      throw new StintError("wake_failed", `A wake could not be sent to ${queueUrl}: ${String(error)}`);
    }
  };
}
