/** Signatures as in Standard Webhooks: HMAC-SHA256 over "id.timestamp.body", base64, with a version in front. */
import { createHmac, timingSafeEqual } from "node:crypto";

const TOLERANCE_SECONDS = 300;

export type SignedHeaders = Readonly<Record<"webhook-id" | "webhook-timestamp" | "webhook-signature", string>>;

export function sign(secret: string, id: string, body: string): SignedHeaders {
  const timestamp = String(Math.floor(Date.now() / 1000));
  return {
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": signatureOf(secret, id, timestamp, body),
  };
}

export function isSigned(secret: string, headers: Readonly<Record<string, unknown>>, body: string): boolean {
  const [id, timestamp, given] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) =>
    String(headers[name]),
  );
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE_SECONDS)) return false;
  const expected = Buffer.from(signatureOf(secret, id!, timestamp!, body));
  const found = Buffer.from(given!);
  return found.length === expected.length && timingSafeEqual(found, expected);
}

const signatureOf = (secret: string, id: string, timestamp: string, body: string): string =>
  `v1,${createHmac("sha256", secret).update(`${id}.${timestamp}.${body}`).digest("base64")}`;
