// Sells with the official `@x402/express` server through the facilitator under test:
// node seller.mjs --facilitator URL --pay-to 0x… [--port 0] [--network eip155:84532] [--price '$0.001']
// Prints {"listening": PORT} and stops when its standard input closes.
//
// GET  /paid     JSON, verified before and settled after the handler (flow "authorization")
// POST /paid     the same, echoes the JSON body it was sent
// GET  /upfront  JSON, settled before the handler without a verify (flow "upfront")
// GET  /upto     scheme `upto`: a tenth of the price is settled
// GET  /nothing  scheme `upto`: nothing is settled
// GET  /permit2  JSON, scheme `exact` over Permit2
// GET  /broken   the handler answers 500, so nothing may be settled
// GET  /free     no payment asked

import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { UptoEvmScheme } from "@x402/evm/upto/server";
import { paymentMiddleware, setSettlementOverrides, x402ResourceServer } from "@x402/express";
import { declareEip2612GasSponsoringExtension } from "@x402/extensions";
import express from "express";
import { flags } from "./shared.mjs";

const { facilitator, port, network, price, ...rest } = flags({
  facilitator: { type: "string", required: true },
  "pay-to": { type: "string", required: true },
  port: { type: "string", default: "0" },
  network: { type: "string", default: "eip155:84532" },
  price: { type: "string", default: "$0.001" },
});

const accepts = { scheme: "exact", network, price, payTo: rest["pay-to"] };
const sold = (description, extra) => ({
  accepts: { ...accepts, ...(extra && { extra }) },
  description,
  mimeType: "application/json",
});
const overPermit2 = (description, how) => ({
  accepts: { ...accepts, ...how },
  description,
  mimeType: "application/json",
  extensions: declareEip2612GasSponsoringExtension(),
});

const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: facilitator }));
server.register(network, new ExactEvmScheme());
server.register(network, new UptoEvmScheme());

const app = express();
app.use(express.json());
app.use(
  paymentMiddleware(
    {
      "GET /paid": sold("A paid answer"),
      "POST /paid": sold("A paid echo"),
      "GET /upfront": sold("An answer paid up front", { paymentFlow: "upfront" }),
      "GET /upto": overPermit2("An answer paid by use", { scheme: "upto" }),
      "GET /nothing": overPermit2("An answer that used nothing", { scheme: "upto" }),
      "GET /permit2": overPermit2("A paid answer", { extra: { assetTransferMethod: "permit2" } }),
      "GET /broken": sold("An answer that fails"),
    },
    server,
  ),
);
app.get("/paid", (_, response) => response.json({ sold: "paid" }));
app.post("/paid", (request, response) => response.json({ sold: "paid", echo: request.body }));
app.get("/upfront", (_, response) => response.json({ sold: "upfront" }));
app.get("/upto", (_, response) => {
  setSettlementOverrides(response, { amount: "10%" });
  response.json({ sold: "upto" });
});
app.get("/nothing", (_, response) => {
  setSettlementOverrides(response, { amount: "0" });
  response.json({ sold: "nothing" });
});
app.get("/permit2", (_, response) => response.json({ sold: "permit2" }));
app.get("/broken", (_, response) => response.status(500).json({ broken: true }));
app.get("/free", (_, response) => response.json({ sold: "free" }));

const listener = app.listen(Number(port), "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ listening: listener.address().port })}\n`);
});
process.stdin.resume().on("close", () => process.exit(0)).on("end", () => process.exit(0));
