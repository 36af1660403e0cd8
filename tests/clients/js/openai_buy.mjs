// Buys chat completions with the official `openai` package whose fetch is the official paying fetch:
// node openai_buy.mjs --url http://host/v1 --key 0x… [--model M] [--prompt P] [--max-tokens N] [--include-usage] [--stream] [--times N]
//   [--rpc URL] [--upto]

import OpenAI from "openai";
import { BUYING, elapsedMs, flags, payingFetch, report } from "./shared.mjs";

const { url, key, rpc, upto, times, stream, model, prompt, ...limits } = flags({
  ...BUYING,
  model: { type: "string", default: "test" },
  prompt: { type: "string", default: "hello" },
  "max-tokens": { type: "string" },
  "include-usage": { type: "boolean", default: false },
});

const { paying, attempts } = payingFetch({ key, rpc, upto });
const openai = new OpenAI({ baseURL: url, apiKey: "not-a-key", fetch: paying });
const request = {
  model,
  messages: [{ role: "user", content: prompt }],
  ...(limits["max-tokens"] !== undefined && { max_tokens: Number(limits["max-tokens"]) }),
  ...(limits["include-usage"] && { stream_options: { include_usage: true } }),
};

/** One JSON completion. */
async function whole(started) {
  const { data, response } = await openai.chat.completions.create(request).withResponse();
  const [choice] = data.choices;
  return {
    status: response.status,
    content: choice.message.content,
    finishReason: choice.finish_reason,
    usage: data.usage ?? null,
    totalMs: elapsedMs(started),
  };
}

/** One streamed completion, every chunk noted. */
async function streamed(started) {
  const { data, response } = await openai.chat.completions.create({ ...request, stream: true }).withResponse();
  const answer = { status: response.status, content: "", finishReason: null, usage: null, chunks: 0, firstChunkMs: null };
  for await (const chunk of data) {
    answer.firstChunkMs ??= elapsedMs(started);
    answer.chunks += 1;
    answer.content += chunk.choices[0]?.delta?.content ?? "";
    answer.finishReason = chunk.choices[0]?.finish_reason ?? answer.finishReason;
    answer.usage = chunk.usage ?? answer.usage;
  }
  return { ...answer, totalMs: elapsedMs(started) };
}

await report("openai (npm) over @x402/fetch", times, attempts, stream ? streamed : whole);
