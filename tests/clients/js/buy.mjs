// Buys an HTTP resource with the official `@x402/fetch` client:
// node buy.mjs --url URL --key 0x… [--method POST] [--body JSON] [--header "Name: value"]… [--stream] [--times N]
//   [--rpc URL] [--upto] [--identifier ID] [--wallet 0x… [--factory 0x… --factory-call 0x…]]

import { BUYING, flags, payingFetch, readBody, report } from "./shared.mjs";

const { url, times, stream, method, body, header, ...wallet } = flags({
  ...BUYING,
  method: { type: "string" },
  body: { type: "string" },
  header: { type: "string", multiple: true, default: [] },
});

const headers = new Headers(header.map((line) => line.split(/:\s*(.*)/s, 2)));
if (body !== undefined) headers.set("content-type", "application/json");
if (stream) headers.set("accept", "text/event-stream");

const { paying, attempts } = payingFetch(wallet);
await report("@x402/fetch", times, attempts, async (started) => {
  const response = await paying(url, { method: method ?? (body === undefined ? "GET" : "POST"), headers, body });
  return { status: response.status, ...(await readBody(response, started)) };
});
