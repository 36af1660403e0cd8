// Compiles src/*.sol with the pinned solc and writes artifacts/<Contract>.json (ABI, creation and
// run-time bytecode). With --check nothing is written: the committed artifacts must come out the same
// byte for byte, so that no one has to trust a bytecode they cannot rebuild.
import { readFileSync, readdirSync, mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** The contracts whose artifacts are committed; libraries and interfaces are inlined into them. */
const CONTRACTS = [
  "ForgivingUSDC",
  "LyingWallet",
  "Multicall3",
  "Permit2",
  "TestUSDC",
  "TestUSDCProxy",
  "TestWallet",
  "TestWalletFactory",
  "X402ExactPermit2Proxy",
  "X402UptoPermit2Proxy",
];

/** No metadata hash: comments and paths must not change the bytecode. */
const SETTINGS = {
  evmVersion: "cancun",
  viaIR: true,
  optimizer: { enabled: true, runs: 200 },
  metadata: { appendCBOR: false, bytecodeHash: "none" },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } },
};

async function loadCompiler() {
  try {
    return (await import("solc")).default;
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    console.error("contracts/node_modules is missing: run `npm ci` in contracts/ first");
    process.exit(2);
  }
}

function compile(solc) {
  const sources = Object.fromEntries(
    readdirSync(here("src"))
      .filter((file) => file.endsWith(".sol"))
      .sort()
      .map((file) => [file, { content: readFileSync(here(`src/${file}`), "utf8") }]),
  );
  const input = { language: "Solidity", sources, settings: SETTINGS };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  for (const problem of output.errors ?? []) console.error(problem.formattedMessage);
  if (output.errors?.length) process.exit(1);
  return output.contracts;
}

function artifact(solc, contracts, name) {
  const { abi, evm } = contracts[`${name}.sol`][name];
  const compact = {
    contractName: name,
    compiler: solc.version(),
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    deployedBytecode: `0x${evm.deployedBytecode.object}`,
  };
  return `${JSON.stringify(compact)}\n`;
}

const solc = await loadCompiler();
const contracts = compile(solc);
const check = process.argv.includes("--check");
let stale = 0;
if (!check) mkdirSync(here("artifacts"), { recursive: true });
for (const name of CONTRACTS) {
  const path = here(`artifacts/${name}.json`);
  const text = artifact(solc, contracts, name);
  if (!check) {
    writeFileSync(path, text);
  } else if (readFileSync(path, "utf8") !== text) {
    console.error(`artifacts/${name}.json is not what ${solc.version()} makes of src/: run \`node build.mjs\``);
    stale += 1;
  }
}
process.exit(stale === 0 ? 0 : 1);
