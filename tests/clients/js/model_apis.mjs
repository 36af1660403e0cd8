// The other APIs of the model: what it says is the prompt again, word by word, and a token is a word.
//
// POST /v1/completions, /v1/responses, /v1/messages   JSON or server-sent events
// POST /v1/embeddings                                 a vector for each input: its length

import { setTimeout as pause } from "node:timers/promises";

/** The words of a text in any of the shapes that the APIs have for it. */
function words(input) {
  const parts = Array.isArray(input) ? input : [input];
  return parts.flatMap((part) => (typeof part === "string" ? part.split(" ") : words(part.content ?? part.text)));
}

/** Adds the routes; words of a stream come `paceMs` apart. */
export function apis(app, paceMs) {
  /** Sends events, each with its name where it has a type; `speak` sends one for each word. */
  function events(response) {
    response.set({ "content-type": "text/event-stream", "cache-control": "no-cache" }).flushHeaders();
    const send = (event) => {
      const name = event.type === undefined ? "" : `event: ${event.type}\n`;
      response.write(`${name}data: ${JSON.stringify(event)}\n\n`);
    };
    const speak = async (spoken, event) => {
      for (const [index, word] of spoken.entries()) {
        if (paceMs > 0) await pause(paceMs);
        send(event(index === 0 ? word : ` ${word}`));
      }
    };
    return { send, speak };
  }

  /** What is said of a prompt within a limit. */
  function reply(input, limit, response) {
    const said = words(input);
    if (said[0] === "fail") {
      response.status(500).json({ type: "error", error: { type: "api_error", message: "the model fell over" } });
      return undefined;
    }
    const spoken = said.slice(0, limit);
    return { said: said.length, spoken, text: spoken.join(" "), short: spoken.length < said.length };
  }

  app.post("/v1/completions", async (request, response) => {
    const { model, prompt, max_tokens: limit, stream, stream_options: options } = request.body;
    const answer = reply(prompt, limit, response);
    if (answer === undefined) return;
    const { said, spoken, text, short } = answer;
    const head = { id: "cmpl-1", object: "text_completion", created: 1, model };
    const usage = { prompt_tokens: said, completion_tokens: spoken.length, total_tokens: said + spoken.length };
    const finish = short ? "length" : "stop";
    const choice = (words, reason) => ({ index: 0, text: words, logprobs: null, finish_reason: reason });
    if (!stream) return response.json({ ...head, choices: [choice(text, finish)], usage });
    const { send, speak } = events(response);
    await speak(spoken, (word) => ({ ...head, choices: [choice(word, null)] }));
    send({ ...head, choices: [choice("", finish)] });
    if (options?.include_usage) send({ ...head, choices: [], usage });
    response.end("data: [DONE]\n\n");
  });

  app.post("/v1/embeddings", (request, response) => {
    const { model, input, encoding_format: encoding } = request.body;
    const inputs = Array.isArray(input) ? input : [input];
    const data = inputs.map((text, index) => {
      const vector = new Float32Array([text.length, 0.5]);
      const base64 = Buffer.from(vector.buffer).toString("base64");
      return { object: "embedding", index, embedding: encoding === "base64" ? base64 : [...vector] };
    });
    const count = words(inputs).length;
    response.json({ object: "list", data, model, usage: { prompt_tokens: count, total_tokens: count } });
  });

  app.post("/v1/responses", async (request, response) => {
    const { model, input, max_output_tokens: limit, stream, store } = request.body;
    const answer = reply(input, limit, response);
    if (answer === undefined) return;
    const { said, spoken, text, short } = answer;
    const usage = {
      input_tokens: said,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: spoken.length,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: said + spoken.length,
    };
    const part = { type: "output_text", text, annotations: [] };
    const item = { id: "msg_1", type: "message", role: "assistant", status: "completed", content: [part] };
    const state = (status, more) => ({
      id: "resp_1", object: "response", created_at: 1, status, error: null, incomplete_details: null, instructions: null,
      max_output_tokens: limit, metadata: {}, model, output: [], parallel_tool_calls: true, store, temperature: 1,
      tool_choice: "auto", tools: [], top_p: 1, usage: null, ...more,
    });
    const status = short ? "incomplete" : "completed";
    const whole = state(status, { output: [item], usage });
    if (!stream) return response.json(whole);
    const { send, speak } = events(response);
    let number = 0;
    const event = (type, more) => ({ type, sequence_number: number++, ...more });
    const at = { item_id: "msg_1", output_index: 0, content_index: 0 };
    send(event("response.created", { response: state("in_progress") }));
    send(event("response.output_item.added", { output_index: 0, item: { ...item, status: "in_progress", content: [] } }));
    send(event("response.content_part.added", { ...at, part: { ...part, text: "" } }));
    await speak(spoken, (delta) => event("response.output_text.delta", { ...at, delta, logprobs: [] }));
    send(event("response.output_text.done", { ...at, text, logprobs: [] }));
    send(event("response.content_part.done", { ...at, part }));
    send(event("response.output_item.done", { output_index: 0, item }));
    send(event(`response.${status}`, { response: whole }));
    response.end();
  });

  app.post("/v1/messages", async (request, response) => {
    const { model, messages, max_tokens: limit, stream } = request.body;
    const answer = reply(messages.at(-1), limit, response);
    if (answer === undefined) return;
    const { spoken, text, short } = answer;
    const stop = { stop_reason: short ? "max_tokens" : "end_turn", stop_sequence: null };
    const head = { id: "msg_1", type: "message", role: "assistant", model };
    const usage = { input_tokens: words(messages).length, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 };
    if (!stream) {
      const content = [{ type: "text", text, citations: null }];
      return response.json({ ...head, content, ...stop, usage: { ...usage, output_tokens: spoken.length } });
    }
    const { send, speak } = events(response);
    const begun = { ...head, content: [], stop_reason: null, stop_sequence: null };
    send({ type: "message_start", message: { ...begun, usage: { ...usage, output_tokens: 1 } } });
    send({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } });
    send({ type: "ping" });
    await speak(spoken, (word) => ({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: word } }));
    send({ type: "content_block_stop", index: 0 });
    send({ type: "message_delta", delta: stop, usage: { output_tokens: spoken.length } });
    send({ type: "message_stop" });
    response.end();
  });
}
