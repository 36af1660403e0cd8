// An OpenAI-compatible API to sell: answers with the words of the last message, so that usage can be foreseen.
// node model.mjs [--port 0] [--pace-ms 0] [--api-key KEY]
// Prints {"listening": PORT} and stops when its standard input closes.
//
// POST /v1/chat/completions   JSON or server-sent events, `--pace-ms` between words; a token is a word.
//                             A prompt that begins with "fail" is answered with status 500.
// POST /v1/{completions,embeddings,responses,messages}   likewise (model_apis.mjs)
// GET  /v1/models             one model, "test"
// GET  /premium/*             {"premium": PATH}
// GET  /asked                 every other request so far, [{method, path, headers, body}]; not for customers

import { setTimeout as pause } from "node:timers/promises";
import express from "express";
import { apis } from "./model_apis.mjs";
import { flags } from "./shared.mjs";

const { port, ...options } = flags({
  port: { type: "string", default: "0" },
  "pace-ms": { type: "string", default: "0" },
  "api-key": { type: "string" },
});
const paceMs = Number(options["pace-ms"]);
const asked = [];

const app = express();
app.use(express.json());
app.get("/asked", (_, response) => response.json(asked));
app.use(({ method, originalUrl, headers, body }, response, next) => {
  asked.push({ method, path: originalUrl, headers, body: body ?? null });
  const key = options["api-key"];
  const shown = originalUrl === "/v1/messages" ? headers["x-api-key"] : headers.authorization?.replace(/^Bearer /, "");
  if (key === undefined || shown === key) return next();
  response.status(401).json({ error: { message: "a wrong API key" } });
});

app.get("/v1/models", (_, response) => {
  response.json({ object: "list", data: [{ id: "test", object: "model", created: 1, owned_by: "tests" }] });
});
app.get("/premium/{*path}", (request, response) => response.json({ premium: request.path }));
apis(app, paceMs);

app.post("/v1/chat/completions", async (request, response) => {
  const { model, messages, stream, stream_options: streamOptions, ...limits } = request.body;
  const said = messages.flatMap(({ content }) => content.split(" "));
  const words = messages.at(-1).content.split(" ");
  if (words[0] === "fail") return response.status(500).json({ error: { message: "the model fell over" } });
  const limit = limits.max_completion_tokens ?? limits.max_tokens ?? Infinity;
  const spoken = words.slice(0, limit);
  const finish = spoken.length < words.length ? "length" : "stop";
  const usage = {
    prompt_tokens: said.length,
    completion_tokens: spoken.length,
    total_tokens: said.length + spoken.length,
  };
  const head = { id: "chatcmpl-1", created: 1, model };
  if (!stream) {
    const message = { role: "assistant", content: spoken.join(" ") };
    const choices = [{ index: 0, message, finish_reason: finish }];
    return response.json({ ...head, object: "chat.completion", choices, usage });
  }
  response.set({ "content-type": "text/event-stream", "cache-control": "no-cache" }).flushHeaders();
  const send = (choices, more) => {
    const chunk = { ...head, object: "chat.completion.chunk", choices, ...more };
    response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  };
  for (const [index, word] of spoken.entries()) {
    if (paceMs > 0) await pause(paceMs);
    send([{ index: 0, delta: { content: index === 0 ? word : ` ${word}` }, finish_reason: null }]);
  }
  send([{ index: 0, delta: {}, finish_reason: finish }]);
  if (streamOptions?.include_usage) send([], { usage });
  response.end("data: [DONE]\n\n");
});

const listener = app.listen(Number(port), "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ listening: listener.address().port })}\n`);
});
process.stdin.resume().on("close", () => process.exit(0)).on("end", () => process.exit(0));
