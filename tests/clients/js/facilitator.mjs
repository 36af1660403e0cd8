// The official TypeScript facilitator on a given chain, to compare ours with and to prove the clients:
// node facilitator.mjs --rpc URL --key 0x… [--port 0] [--network eip155:84532] [--poll 50] [--nonces managed]
// Prints {"listening": PORT} and stops when its standard input closes.

import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { UptoEvmScheme } from "@x402/evm/upto/facilitator";
import express from "express";
import { createWalletClient, defineChain, http, nonceManager, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { flags } from "./shared.mjs";

const { rpc, key, port, network, poll, nonces } = flags({
  rpc: { type: "string", required: true },
  key: { type: "string", required: true },
  port: { type: "string", default: "0" },
  network: { type: "string", default: "eip155:84532" },
  poll: { type: "string", default: "50" },
  // "managed": counted here, so that payments settled at once do not take each other's. The usual set-up asks the node.
  nonces: { type: "string", default: "asked" },
});

const chain = defineChain({
  id: Number(network.split(":")[1]),
  name: "dev",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [rpc] } },
});
const account = privateKeyToAccount(key, nonces === "managed" ? { nonceManager } : {});
const wallet = createWalletClient({ account, chain, transport: http(rpc), pollingInterval: Number(poll) }).extend(publicActions);
// The package wants its signer flat: the address beside the actions.
const signer = toFacilitatorEvmSigner({
  address: account.address,
  getCode: (args) => wallet.getCode(args),
  readContract: (args) => wallet.readContract({ ...args, args: args.args ?? [] }),
  verifyTypedData: (args) => wallet.verifyTypedData(args),
  writeContract: (args) => wallet.writeContract({ ...args, args: args.args ?? [] }),
  sendTransaction: (args) => wallet.sendTransaction(args),
  waitForTransactionReceipt: (args) => wallet.waitForTransactionReceipt(args),
});
const facilitator = registerExactEvmScheme(new x402Facilitator(), { signer, networks: network });
facilitator.register(network, new UptoEvmScheme(signer));

const app = express();
app.use(express.json());
app.get("/supported", (_, response) => response.json(facilitator.getSupported()));
for (const operation of ["verify", "settle"]) {
  app.post(`/${operation}`, async (request, response) => {
    const { paymentPayload, paymentRequirements } = request.body;
    response.json(await facilitator[operation](paymentPayload, paymentRequirements));
  });
}

const listener = app.listen(Number(port), "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ listening: listener.address().port })}\n`);
});
process.stdin.resume().on("close", () => process.exit(0)).on("end", () => process.exit(0));
