// What the scripts share: arguments, the official paying fetch with a record of its attempts, and a
// plain reader of server-sent events. Every script prints one JSON object and exits 0 or 1.

import { parseArgs } from "node:util";
import { decodePaymentRequiredHeader } from "@x402/core/http";
import { registerExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
// Brought along by @x402/express.
import { appendPaymentIdentifierToExtensions } from "@x402/extensions/payment-identifier";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { serializeErc6492Signature } from "viem";
import { privateKeyToAccount } from "viem/accounts";

/** Parses `--name value` flags. Unknown flags are refused; flags without a default are required. */
export function flags(options) {
  const { values } = parseArgs({ options, strict: true });
  for (const [name, option] of Object.entries(options)) {
    if (option.required && values[name] === undefined) throw new Error(`--${name} is required`);
  }
  return values;
}

/** The flags of every buying script. */
export const BUYING = {
  url: { type: "string", required: true },
  key: { type: "string", required: true },
  stream: { type: "boolean", default: false },
  times: { type: "string", default: "1" },
  rpc: { type: "string" },
  upto: { type: "boolean", default: false },
  identifier: { type: "string" },
  wallet: { type: "string" },
  factory: { type: "string" },
  "factory-call": { type: "string" },
};

/**
 * Who signs: the key's own account, or the contract `wallet` that signs with the key (ERC-1271). One that
 * is not there yet says with each signature how it is made (ERC-6492).
 */
function signerOf({ key, wallet, factory, "factory-call": data }) {
  const account = privateKeyToAccount(key);
  if (wallet === undefined) return account;
  const signTypedData = async (message) => {
    const signature = await account.signTypedData(message);
    return factory === undefined ? signature : serializeErc6492Signature({ address: factory, data, signature });
  };
  return { address: wallet, signTypedData };
}

/** What the first of the named headers says, decoded; its text where it cannot be decoded. */
function noted(headers, ...names) {
  const value = names.map((name) => headers.get(name)).find((text) => text !== null);
  if (value === undefined) return null;
  try {
    return decodePaymentRequiredHeader(value);
  } catch {
    return value;
  }
}

/**
 * A fetch that notes each attempt. `attempts` tells what went over the wire: what was signed, and
 * which answers came (`status` stays null where none did).
 */
export function recordingFetch() {
  const attempts = [];
  const recording = async (input, init) => {
    const request = new Request(input, init);
    const attempt = {
      method: request.method,
      url: request.url,
      signed: noted(request.headers, "PAYMENT-SIGNATURE", "X-PAYMENT"),
      status: null,
    };
    attempts.push(attempt);
    const sent = performance.now();
    const response = await fetch(request);
    Object.assign(attempt, {
      status: response.status,
      required: noted(response.headers, "PAYMENT-REQUIRED"),
      settled: noted(response.headers, "PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE"),
      headers: Object.fromEntries(response.headers),
      headersMs: elapsedMs(sent),
    });
    return response;
  };
  return { recording, attempts };
}

/**
 * The official client with its default registration, around a fetch that notes each attempt.
 * With `rpc` it can read the chain, as it must to sign for its Permit2 allowance; with `upto` it
 * knows that scheme as well. With `identifier`, all it pays for is one request of that name, to
 * sellers that declare `payment-identifier`.
 */
export function payingFetch({ rpc, upto, identifier, ...wallet }) {
  const { recording, attempts } = recordingFetch();
  const client = new x402Client();
  const signer = signerOf(wallet);
  const schemeOptions = rpc === undefined ? undefined : { rpcUrl: rpc };
  registerExactEvmScheme(client, { signer, schemeOptions });
  if (upto) client.register("eip155:*", new UptoEvmScheme(signer, schemeOptions));
  if (identifier !== undefined) {
    client.onBeforePaymentCreation(async ({ paymentRequired }) => {
      appendPaymentIdentifierToExtensions(paymentRequired.extensions ?? {}, identifier);
    });
  }
  return { paying: wrapFetchWithPayment(recording, client), attempts };
}

/** Whole milliseconds since `started`. */
export function elapsedMs(started) {
  return Math.round(performance.now() - started);
}

/**
 * Reads a body to its end and notes when its parts came, counted from `started`.
 * An event stream is also cut into `frames`: `{data}`, `{event}` or `{comment}`, in order of arrival.
 */
export async function readBody(response, started) {
  const decoder = new TextDecoder();
  const chunksMs = [];
  let body = "";
  for await (const chunk of response.body ?? []) {
    chunksMs.push(elapsedMs(started));
    body += decoder.decode(chunk, { stream: true });
  }
  body += decoder.decode();
  const totalMs = elapsedMs(started);
  const isStream = (response.headers.get("content-type") ?? "").startsWith("text/event-stream");
  return {
    body,
    firstChunkMs: chunksMs[0] ?? null,
    chunks: chunksMs.length,
    totalMs,
    frames: isStream ? frames(body) : null,
  };
}

function frames(text) {
  return text
    .split(/\r\n|\n|\r/)
    .filter((line) => line !== "")
    .map((line) => {
      const colon = line.indexOf(":");
      const field = colon === -1 ? line : line.slice(0, colon);
      const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
      return { [field === "" ? "comment" : field]: value };
    });
}

/** An error as data: SDK errors carry a status and the answer's body. */
export function failure(error) {
  return { name: error.constructor.name, message: error.message, status: error.status ?? null, body: error.error ?? null };
}

/** Runs `buy` the wanted number of times, prints the report, exits 0 if every purchase was served. */
export async function report(client, times, attempts, buy) {
  const purchases = [];
  for (let count = 0; count < Number(times); count += 1) {
    const before = attempts.length;
    const started = performance.now();
    const purchase = await buy(started).catch((error) => ({ error: failure(error) }));
    purchases.push({ ...purchase, attempts: attempts.slice(before) });
  }
  const served = purchases.every(({ error, status }) => error === undefined && status < 400);
  process.stdout.write(`${JSON.stringify({ client, served, purchases })}\n`);
  process.exitCode = served ? 0 : 1;
}
