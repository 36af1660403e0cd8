// Buys from the other APIs than chat with the official `openai` and `@anthropic-ai/sdk` packages whose
// fetch is the official paying fetch:
// node api_buy.mjs --api completions|embeddings|responses|messages --url http://host/v1 --key 0x… [--model M]
//   [--prompt P] [--max-tokens N] [--stream] [--times N] [--rpc URL] [--upto]

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { BUYING, elapsedMs, flags, payingFetch, report } from "./shared.mjs";

const { api, url, key, rpc, upto, times, stream, model, prompt, ...limits } = flags({
  ...BUYING,
  api: { type: "string", required: true },
  model: { type: "string", default: "test" },
  prompt: { type: "string", default: "hello" },
  "max-tokens": { type: "string", default: "50" },
});
const most = Number(limits["max-tokens"]);

const { paying, attempts } = payingFetch({ key, rpc, upto });
const openai = new OpenAI({ baseURL: url, apiKey: "not-a-key", fetch: paying });
const anthropic = new Anthropic({ baseURL: url.replace(/\/v1$/, ""), apiKey: "not-a-key", fetch: paying });

/** How each API is asked, and what its answers and events say. */
const APIS = {
  completions: {
    ask: (more) => openai.completions.create({ model, prompt, max_tokens: most, ...more }),
    whole: ({ choices: [{ text, finish_reason: finishReason }], usage }) => ({ content: text, finishReason, usage }),
    part: ({ choices, usage }) => ({ text: choices[0]?.text, finishReason: choices[0]?.finish_reason, usage }),
  },
  embeddings: {
    ask: () => openai.embeddings.create({ model, input: prompt.split(" ") }),
    whole: ({ data, usage }) => ({ content: JSON.stringify(data.map(({ embedding }) => embedding)), usage }),
  },
  responses: {
    ask: (more) => openai.responses.create({ model, input: prompt, max_output_tokens: most, ...more }),
    whole: ({ output_text: content, status, usage }) => ({ content, finishReason: status, usage }),
    part: ({ type, delta, response }) => ({
      text: type === "response.output_text.delta" ? delta : "",
      finishReason: response?.status,
      usage: response?.usage,
    }),
  },
  messages: {
    ask: (more) =>
      anthropic.messages.create({ model, max_tokens: most, messages: [{ role: "user", content: prompt }], ...more }),
    whole: ({ content: [{ text }], stop_reason: finishReason, usage }) => ({ content: text, finishReason, usage }),
    part: ({ delta, usage }) => ({ text: delta?.text, finishReason: delta?.stop_reason, usage }),
  },
};
const { ask, whole, part } = APIS[api];

/** One answer in one piece. */
async function buy(started) {
  const { data, response } = await ask({}).withResponse();
  return { status: response.status, ...whole(data), totalMs: elapsedMs(started) };
}

/** One streamed answer, every event noted. */
async function streamed(started) {
  const { data, response } = await ask({ stream: true }).withResponse();
  const answer = { status: response.status, content: "", finishReason: null, usage: null, chunks: 0, firstChunkMs: null };
  for await (const event of data) {
    const { text, finishReason, usage } = part(event);
    if (text) answer.firstChunkMs ??= elapsedMs(started);
    answer.chunks += 1;
    answer.content += text ?? "";
    answer.finishReason = finishReason ?? answer.finishReason;
    answer.usage = usage ?? answer.usage;
  }
  return { ...answer, totalMs: elapsedMs(started) };
}

const sdk = api === "messages" ? "@anthropic-ai/sdk" : "openai (npm)";
await report(`${sdk} over @x402/fetch`, times, attempts, stream ? streamed : buy);
