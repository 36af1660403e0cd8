// Sells with the official x402 v1 server, `x402-express` 1.2.0, through the facilitator under test:
// node seller_v1.mjs --facilitator URL --pay-to 0x… [--port 0] [--network base-sepolia] [--price '$0.001']
// Prints {"listening": PORT} and stops when its standard input closes.
//
// GET  /paid    JSON, verified before and settled after the handler
// POST /paid    the same, echoes the JSON body it was sent
// GET  /broken  the handler answers 500, so nothing may be settled

import express from "express";
import { paymentMiddleware } from "x402-express";
import { flags } from "./shared.mjs";

const { facilitator, port, network, price, ...rest } = flags({
  facilitator: { type: "string", required: true },
  "pay-to": { type: "string", required: true },
  port: { type: "string", default: "0" },
  network: { type: "string", default: "base-sepolia" },
  price: { type: "string", default: "$0.001" },
});
const sold = (description) => ({ price, network, config: { description, mimeType: "application/json" } });

const app = express();
app.use(express.json());
app.use(
  paymentMiddleware(
    rest["pay-to"],
    { "GET /paid": sold("A paid answer"), "POST /paid": sold("A paid echo"), "GET /broken": sold("An answer that fails") },
    { url: facilitator },
  ),
);
app.get("/paid", (_, response) => response.json({ sold: "paid" }));
app.post("/paid", (request, response) => response.json({ sold: "paid", echo: request.body }));
app.get("/broken", (_, response) => response.status(500).json({ broken: true }));

const listener = app.listen(Number(port), "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ listening: listener.address().port })}\n`);
});
process.stdin.resume().on("close", () => process.exit(0)).on("end", () => process.exit(0));
