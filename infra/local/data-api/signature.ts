import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { SignatureV4 } from "@smithy/signature-v4";
import { ApiError } from "./errors.ts";
import type { Credentials } from "./options.ts";

const service = "rds-data";
const clockSkewMs = 5 * 60 * 1000;

const refused = (code: string, message: string) => new ApiError(code, 403, message);

const form =
  /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)\/(\d{8})\/([^/,\s]+)\/([^/,\s]+)\/aws4_request,\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})$/;

interface Signed {
  accessKeyId: string;
  region: string;
  headers: string[];
  signature: string;
  date: string;
  timeMs: number;
}

/** Refuses what is not signed as SigV4 wants it and, when a pair of credentials is given, what another key signed. */
export function signatureCheck(credentials?: Credentials): (request: IncomingMessage, body: Buffer) => Promise<void> {
  const signer = credentials && signerOf(credentials);
  return async (request, body) => {
    const signed = read(request);
    if (signer) await verify(signed, request, body, credentials, signer);
  };
}

function read(request: IncomingMessage): Signed {
  const header = request.headers.authorization;
  if (header === undefined) throw refused("MissingAuthenticationTokenException", "Missing Authentication Token");
  const [, accessKeyId, day, region, named, headers, signature] = form.exec(header) ?? [];
  const date = headerOf(request, "x-amz-date") ?? "";
  const timeMs = timeOf(date);
  if (!accessKeyId || Number.isNaN(timeMs))
    throw refused(
      "IncompleteSignatureException",
      "Authorization header requires Credential, SignedHeaders, Signature and X-Amz-Date.",
    );
  if (named !== service || !date.startsWith(day!))
    throw refused("InvalidSignatureException", `Credential should be scoped to correct service: '${service}'.`);
  return { accessKeyId, region: region!, headers: headers!.split(";"), signature: signature!, date, timeMs };
}

async function verify(
  { accessKeyId, region, headers, signature, date, timeMs }: Signed,
  request: IncomingMessage,
  body: Buffer,
  credentials: Credentials,
  signer: SignatureV4,
): Promise<void> {
  if (accessKeyId !== credentials.accessKeyId)
    throw refused("UnrecognizedClientException", "The security token included in the request is invalid.");
  const again = await signer.sign(requestWith(headers, request, body), {
    signingDate: new Date(timeMs),
    signingRegion: region,
    signableHeaders: new Set(headers),
  });
  const expected = again.headers.authorization!.slice(-signature.length);
  const fits = timingSafeEqual(Buffer.from(expected, "hex"), Buffer.from(signature, "hex"));
  if (!fits || !headers.includes("host") || !hashFits(headers, request, body))
    throw refused(
      "InvalidSignatureException",
      "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
    );
  if (Math.abs(timeMs - Date.now()) > clockSkewMs)
    throw refused(
      "InvalidSignatureException",
      `Signature expired: ${date} is not within five minutes of this machine's time.`,
    );
}

/** The request as its sender signed it. A header that is named and not there fails the signature, as the names are part of it. */
function requestWith(names: string[], request: IncomingMessage, body: Buffer) {
  const [path = "/", search] = request.url!.split("?");
  const query = new URLSearchParams(search);
  const headers = names.map((name) => [name, headerOf(request, name)] as const);
  return {
    protocol: "http:",
    hostname: "",
    method: request.method!,
    path,
    query: Object.fromEntries([...query.keys()].map((name) => [name, query.getAll(name)])),
    headers: Object.fromEntries(headers.filter((header): header is [string, string] => header[1] !== undefined)),
    body,
  };
}

const hashHeader = "x-amz-content-sha256";

/** The signer believes this header where it is signed, and does not look at the body then. */
function hashFits(names: string[], request: IncomingMessage, body: Buffer): boolean {
  if (!names.includes(hashHeader)) return true;
  return headerOf(request, hashHeader) === createHash("sha256").update(body).digest("hex");
}

function headerOf({ headers }: IncomingMessage, name: string): string | undefined {
  return Object.hasOwn(headers, name) ? String(headers[name]) : undefined;
}

/** NaN for what is no date. */
function timeOf(date: string): number {
  const [, year, month, day, hours, minutes, seconds] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(date) ?? [];
  return Date.parse(`${year}-${month}-${day}T${hours}:${minutes}:${seconds}Z`);
}

function signerOf(credentials: Credentials): SignatureV4 {
  return new SignatureV4({ credentials, region: "", service, sha256: Sha256, applyChecksum: false });
}

class Sha256 {
  readonly #hash;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash("sha256") : createHmac("sha256", secret as string | Uint8Array);
  }
  update(chunk: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(chunk as Uint8Array);
  }
  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }
}
