// Buys an HTTP resource with the official x402 v1 client, `x402-fetch` 1.2.0:
// node buy_v1.mjs --url URL --key 0x… [--network base-sepolia] [--method POST] [--body JSON] [--stream] [--times N]

import { createSigner, wrapFetchWithPayment } from "x402-fetch";
import { BUYING, flags, readBody, recordingFetch, report } from "./shared.mjs";

const { rpc: _rpc, upto: _upto, ...buying } = BUYING;
const { url, key, times, stream, network, method, body } = flags({
  ...buying,
  network: { type: "string", default: "base-sepolia" },
  method: { type: "string" },
  body: { type: "string" },
});

// The package copies its headers from a plain object only.
const headers = {
  ...(body !== undefined && { "content-type": "application/json" }),
  ...(stream && { accept: "text/event-stream" }),
};

const { recording, attempts } = recordingFetch();
const paying = wrapFetchWithPayment(recording, await createSigner(network, key));
await report("x402-fetch", times, attempts, async (started) => {
  const response = await paying(url, { method: method ?? (body === undefined ? "GET" : "POST"), headers, body });
  return { status: response.status, ...(await readBody(response, started)) };
});
