/** The provider that sends e-mail, over HTTP. */
import { mailUrl } from "./settings.ts";

export interface Mail {
  readonly to: string;
  readonly subject: string;
  readonly text: string;
}

/** @param key the same for each attempt: the provider drops what it has accepted before */
export async function sendMail(mail: Mail, key: string, signal: AbortSignal): Promise<void> {
  const headers = { "content-type": "application/json", "idempotency-key": key };
  const response = await fetch(mailUrl(), { method: "POST", headers, body: JSON.stringify(mail), signal });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`The mail provider answered ${response.status}.`);
}
