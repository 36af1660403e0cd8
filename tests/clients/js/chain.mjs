// Uses a chain as viem and ethers do, the ways people drive it from their own tests:
// node chain.mjs --rpc URL --key 0x… [--token 0x…]
// The key's account needs ether and token units. Prints one JSON object: what each library saw.

import { Contract, JsonRpcProvider, parseEther, Wallet } from "ethers";
import { createPublicClient, createWalletClient, defineChain, http, parseAbi } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { flags } from "./shared.mjs";

const { rpc, key, token } = flags({
  rpc: { type: "string", required: true },
  key: { type: "string", required: true },
  token: { type: "string", default: "0x036CbD53842c5426634e7929541eC2318f3dCF7e" },
});
const SOMEBODY = "0x00000000000000000000000000000000000000fe";
const ABI = [
  "function name() view returns (string)",
  "function balanceOf(address) view returns (uint256)",
  "function transfer(address to, uint256 value) returns (bool)",
  "event Transfer(address indexed from, address indexed to, uint256 value)",
];

async function withViem() {
  const transport = http(rpc);
  const account = privateKeyToAccount(key);
  const reader = createPublicClient({ transport, pollingInterval: 50 });
  const chain = defineChain({
    id: await reader.getChainId(),
    name: "dev",
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [rpc] } },
  });
  const writer = createWalletClient({ account, chain, transport });
  const contract = { address: token, abi: parseAbi(ABI) };
  const balance = () => reader.readContract({ ...contract, functionName: "balanceOf", args: [SOMEBODY] });

  const before = await balance();
  const call = { ...contract, account, functionName: "transfer", args: [SOMEBODY, 7n] };
  const gas = await reader.estimateContractGas(call);
  const { request, result } = await reader.simulateContract(call);
  const hash = await writer.writeContract(request);
  const receipt = await reader.waitForTransactionReceipt({ hash });
  const logs = await reader.getLogs({
    address: token,
    event: contract.abi.find(({ type }) => type === "event"),
    fromBlock: receipt.blockNumber,
  });
  const refused = await reader
    .simulateContract({ ...call, args: [SOMEBODY, 2n ** 255n] })
    .then(() => null, (error) => error.shortMessage);
  const { maxFeePerGas } = await reader.estimateFeesPerGas();
  const block = await reader.getBlock({ includeTransactions: true });
  const ether = await writer.sendTransaction({ to: SOMEBODY, value: 3n });
  await reader.waitForTransactionReceipt({ hash: ether });
  return {
    chainId: chain.id,
    name: await reader.readContract({ ...contract, functionName: "name" }),
    moved: Number((await balance()) - before),
    simulated: result,
    refused,
    gasCovers: gas >= receipt.gasUsed,
    status: receipt.status,
    logs: logs.length,
    logValue: Number(logs[0]?.args.value),
    transactions: block.transactions.length,
    feeCoversBase: maxFeePerGas >= block.baseFeePerGas,
    feeHistory: (await reader.getFeeHistory({ blockCount: 1, rewardPercentiles: [50] })).gasUsedRatio.length,
    etherOfSomebody: (await reader.getBalance({ address: SOMEBODY })) > 0n,
    code: (await reader.getCode({ address: token })).length > 2,
    nonce: await reader.getTransactionCount({ address: account.address }),
  };
}

async function withEthers() {
  const provider = new JsonRpcProvider(rpc, undefined, { cacheTimeout: -1 });
  provider.pollingInterval = 50;
  const wallet = new Wallet(key, provider);
  const contract = new Contract(token, ABI, wallet);
  const before = await contract.balanceOf(SOMEBODY);
  const gas = await contract.transfer.estimateGas(SOMEBODY, 5n);
  const simulated = await contract.transfer.staticCall(SOMEBODY, 5n);
  const receipt = await (await contract.transfer(SOMEBODY, 5n)).wait();
  const events = await contract.queryFilter("Transfer", receipt.blockNumber);
  const refused = await contract.transfer.staticCall(SOMEBODY, 2n ** 255n).then(() => null, (error) => error.reason);
  const ether = await (await wallet.sendTransaction({ to: SOMEBODY, value: parseEther("0.001") })).wait();
  const fees = await provider.getFeeData();
  const answer = {
    chainId: Number((await provider.getNetwork()).chainId),
    moved: Number((await contract.balanceOf(SOMEBODY)) - before),
    simulated,
    refused,
    gasCovers: gas >= receipt.gasUsed,
    status: receipt.status,
    events: events.length,
    eventValue: Number(events[0]?.args.value),
    ether: ether.status,
    maxFee: fees.maxFeePerGas !== null,
    block: (await provider.getBlock("latest")).number >= receipt.blockNumber,
    nonce: await provider.getTransactionCount(wallet.address),
  };
  provider.destroy();
  return answer;
}

const viem = await withViem();
const ethers = await withEthers();
process.stdout.write(`${JSON.stringify({ viem, ethers })}\n`);
