import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { ApiError } from "./errors.ts";
import type { Credentials } from "./options.ts";

const service = "rds-data";
const clockSkewMs = 5 * 60 * 1000;

const refused = (code: string, message: string) => new ApiError(code, 403, message);

const form =
  /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)\/(\d{8})\/([^/,\s]+)\/([^/,\s]+)\/aws4_request,\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})$/;

/** Refuses what is not signed as SigV4 wants it and, when a pair of credentials is given, what another key signed. */
export function checkSignature(request: IncomingMessage, body: Buffer, credentials?: Credentials): void {
  const header = request.headers.authorization;
  if (header === undefined) throw refused("MissingAuthenticationTokenException", "Missing Authentication Token");
  const [, accessKeyId, day, region, named, signed, signature] = form.exec(header) ?? [];
  const date = headerOf(request, "x-amz-date");
  if (!accessKeyId || !/^\d{8}T\d{6}Z$/.test(date))
    throw refused(
      "IncompleteSignatureException",
      "Authorization header requires Credential, SignedHeaders, Signature and X-Amz-Date.",
    );
  if (named !== service || !date.startsWith(day!))
    throw refused("InvalidSignatureException", `Credential should be scoped to correct service: '${service}'.`);
  if (!credentials) return;

  if (accessKeyId !== credentials.accessKeyId)
    throw refused("UnrecognizedClientException", "The security token included in the request is invalid.");
  const scope = `${day}/${region}/${service}/aws4_request`;
  const stringToSign = ["AWS4-HMAC-SHA256", date, scope, sha256(canonical(request, body, signed!))].join("\n");
  const expected = hmac(signingKey(credentials.secretAccessKey, day!, region!), stringToSign);
  const wanted = ["host", "x-amz-date"].every((name) => signed!.split(";").includes(name));
  if (!wanted || !timingSafeEqual(expected, Buffer.from(signature!, "hex")))
    throw refused(
      "InvalidSignatureException",
      "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
    );
  if (Math.abs(timeOf(date) - Date.now()) > clockSkewMs)
    throw refused(
      "InvalidSignatureException",
      `Signature expired: ${date} is not within five minutes of this machine's time.`,
    );
}

function headerOf(request: IncomingMessage, name: string): string {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(",") : (value ?? "");
}

function canonical(request: IncomingMessage, body: Buffer, signed: string): string {
  const [path = "/", query = ""] = request.url!.split("?");
  const headers = signed.split(";").map((name) => `${name}:${headerOf(request, name).trim().replace(/\s+/g, " ")}\n`);
  return [request.method, path, query.split("&").sort().join("&"), headers.join(""), signed, sha256(body)].join("\n");
}

const sha256 = (text: string | Buffer) => createHash("sha256").update(text).digest("hex");
const hmac = (key: string | Buffer, text: string) => createHmac("sha256", key).update(text).digest();

function signingKey(secret: string, day: string, region: string): Buffer {
  return hmac(hmac(hmac(hmac(`AWS4${secret}`, day), region), service), "aws4_request");
}

function timeOf(date: string): number {
  return Date.parse(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"));
}
