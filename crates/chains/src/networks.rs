//! The networks that need no configuration: one row each, with their tokens.
//!
//! Addresses, decimals and EIP-712 domains are those of the npm package `@x402/evm` 2.27.0
//! (`defaultAssets`), and of Circle's list of USDC contracts for the five networks that it lacks
//! (10, 11155111, 80002, 43113, 11155420). The start-up check compares every domain with what the
//! token itself says, so a wrong row can refuse to start and never take a payment.
//!
//! Each row names the source of its block time, of its finality and of what is known of its price of gas,
//! as of November 2026. Where a network publishes no price, or a depth is our judgement, the row says so:
//! prices help to bound ([`NetworkConfig::from_row`](crate::NetworkConfig::from_row)) and are never charged
//! by. The depth of a rollup is what its sequencer does not take back in practice; its L1 takes longer.
//! `settle_fee_micro_usd` is an estimate of ours for about 85 000 gas.

use std::time::Duration;

/// What is known of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRow {
    /// CAIP-2: `eip155:8453`.
    pub id: &'static str,
    /// For people: `Base`.
    pub display_name: &'static str,
    /// What x402 v1 calls it: `base`.
    pub v1_name: &'static str,
    /// Whether its money is worth something.
    pub kind: NetworkKind,
    /// The usual time from block to block.
    pub block_time: Duration,
    /// How many blocks deep a transaction is practically final.
    pub finality_depth: u32,
    /// A usual price of gas, in wei.
    pub gas_price_wei: u128,
    /// The least tip that its validators take, in wei.
    pub tip_floor_wei: u128,
    /// What settling one `exact` payment usually costs, in 10⁻⁶ US dollars.
    pub settle_fee_micro_usd: u64,
    /// Its tokens; the first is the default.
    pub tokens: &'static [TokenRow],
}

/// Whether money is at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// Yes.
    Main,
    /// No.
    Test,
}

/// A token that `exact` can move by EIP-3009.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// How configuration calls it: `usdc`.
    pub symbol: &'static str,
    /// Its contract, in EIP-55 mixed case.
    pub address: &'static str,
    /// Atomic units are 10⁻ⁿ of it.
    pub decimals: u8,
    /// EIP-712 domain name.
    pub name: &'static str,
    /// EIP-712 domain version.
    pub version: &'static str,
}

/// Every network of the table.
pub static NETWORKS: &[NetworkRow] = &[
    // ethereum/consensus-specs: SECONDS_PER_SLOT 12, finality after two epochs of 32 slots. There is no least
    // price of gas; 1 gwei is our estimate.
    NetworkRow {
        id: "eip155:1",
        display_name: "Ethereum",
        v1_name: "ethereum",
        kind: NetworkKind::Main,
        block_time: Duration::from_secs(12),
        finality_depth: 64,
        gas_price_wei: 1_000_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 300_000,
        tokens: &[usd_coin("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48")],
    },
    // As Ethereum; prices vary at will.
    NetworkRow {
        id: "eip155:11155111",
        display_name: "Ethereum Sepolia",
        v1_name: "sepolia",
        kind: NetworkKind::Test,
        block_time: Duration::from_secs(12),
        finality_depth: 64,
        gas_price_wei: 1_000_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 0,
        tokens: &[usdc("0x1c7D4B196Cb0C7B01d743Fbc6116a902379C7238")],
    },
    // docs.base.org, block building: a block each 2 s; configuration changelog: base fee at least 2,000,000 wei
    // since 2026-02-02. 0.01 gwei is five times that. Depth: our judgement.
    NetworkRow {
        id: "eip155:8453",
        display_name: "Base",
        v1_name: "base",
        kind: NetworkKind::Main,
        block_time: Duration::from_secs(2),
        finality_depth: 10,
        gas_price_wei: 10_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 3_000,
        tokens: &[usd_coin("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913")],
    },
    // As Base; configuration changelog: base fee at least 200,000 wei since 2025-11-20.
    NetworkRow {
        id: "eip155:84532",
        display_name: "Base Sepolia",
        v1_name: "base-sepolia",
        kind: NetworkKind::Test,
        block_time: Duration::from_secs(2),
        finality_depth: 10,
        gas_price_wei: 1_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 0,
        tokens: &[usdc("0x036CbD53842c5426634e7929541eC2318f3dCF7e")],
    },
    // Polygon PIP-11: milestones make blocks final within a few. Block time: the network's usual 2 s. Prices and
    // the least tip are what bor nodes are run with; we found no document of theirs that names them.
    NetworkRow {
        id: "eip155:137",
        display_name: "Polygon",
        v1_name: "polygon",
        kind: NetworkKind::Main,
        block_time: Duration::from_secs(2),
        finality_depth: 5,
        gas_price_wei: 50_000_000_000,
        // Bor refuses transactions that tip less than 25 gwei.
        tip_floor_wei: 25_000_000_000,
        settle_fee_micro_usd: 1_500,
        tokens: &[usd_coin("0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359")],
    },
    // As Polygon.
    NetworkRow {
        id: "eip155:80002",
        display_name: "Polygon Amoy",
        v1_name: "polygon-amoy",
        kind: NetworkKind::Test,
        block_time: Duration::from_secs(2),
        finality_depth: 5,
        gas_price_wei: 30_000_000_000,
        tip_floor_wei: 25_000_000_000,
        settle_fee_micro_usd: 0,
        tokens: &[usdc("0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582")],
    },
    // docs.arbitrum.io, chain parameters: gas price floor 0.02 gwei. Four blocks a second as measured; depth: our
    // judgement, ten seconds of the sequencer's word.
    NetworkRow {
        id: "eip155:42161",
        display_name: "Arbitrum One",
        v1_name: "arbitrum",
        kind: NetworkKind::Main,
        block_time: Duration::from_millis(250),
        finality_depth: 40,
        gas_price_wei: 20_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 6_000,
        tokens: &[usd_coin("0xaf88d065e77c8cC2239327C5EDb3A432268e5831")],
    },
    // As Arbitrum One; chain parameters: gas price floor 0.2 gwei.
    NetworkRow {
        id: "eip155:421614",
        display_name: "Arbitrum Sepolia",
        v1_name: "arbitrum-sepolia",
        kind: NetworkKind::Test,
        block_time: Duration::from_millis(250),
        finality_depth: 40,
        gas_price_wei: 200_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 0,
        tokens: &[usd_coin("0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d")],
    },
    // OP Stack: a block each 2 s (with sub-blocks in between that are not waited for). Price: our estimate; depth:
    // our judgement.
    NetworkRow {
        id: "eip155:10",
        display_name: "Optimism",
        v1_name: "optimism",
        kind: NetworkKind::Main,
        block_time: Duration::from_secs(2),
        finality_depth: 10,
        gas_price_wei: 2_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 1_000,
        tokens: &[usd_coin("0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85")],
    },
    // As Optimism. The token is in no table of the SDK: address by Circle's list, domain name as the other test
    // networks of Circle's newer deployments have it and as sellers there use it; the start-up check asks it.
    NetworkRow {
        id: "eip155:11155420",
        display_name: "OP Sepolia",
        v1_name: "optimism-sepolia",
        kind: NetworkKind::Test,
        block_time: Duration::from_secs(2),
        finality_depth: 10,
        gas_price_wei: 1_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 0,
        tokens: &[usdc("0x5fd84259d66Cd46123540766Be93DFE6D43130D7")],
    },
    // ACP-226: validators set the time between blocks, 2 s when it was measured; accepted blocks are final. ACP-125
    // and ACP-176: base fee from next to nothing, 0.05 gwei when it was measured.
    NetworkRow {
        id: "eip155:43114",
        display_name: "Avalanche C-Chain",
        v1_name: "avalanche",
        kind: NetworkKind::Main,
        block_time: Duration::from_secs(2),
        finality_depth: 1,
        gas_price_wei: 100_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 200,
        tokens: &[usd_coin("0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E")],
    },
    // As Avalanche.
    NetworkRow {
        id: "eip155:43113",
        display_name: "Avalanche Fuji",
        v1_name: "avalanche-fuji",
        kind: NetworkKind::Test,
        block_time: Duration::from_secs(2),
        finality_depth: 1,
        gas_price_wei: 100_000_000,
        tip_floor_wei: 0,
        settle_fee_micro_usd: 0,
        tokens: &[usd_coin("0x5425890298aed601595a70AB815c96711a31Bc65")],
    },
    // docs.sei.io, differences with Ethereum: 400 ms blocks, instant finality; gas and fees: the least price is set
    // by governance and not written down. 50 gwei is our estimate. Gas that is bought and not used may not be
    // given back in full there.
    NetworkRow {
        id: "eip155:1329",
        display_name: "Sei",
        v1_name: "sei",
        kind: NetworkKind::Main,
        block_time: Duration::from_millis(400),
        finality_depth: 1,
        gas_price_wei: 50_000_000_000,
        tip_floor_wei: 1_000_000_000,
        settle_fee_micro_usd: 1_000,
        tokens: &[usdc("0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392")],
    },
    // As Sei.
    NetworkRow {
        id: "eip155:1328",
        display_name: "Sei Testnet",
        v1_name: "sei-testnet",
        kind: NetworkKind::Test,
        block_time: Duration::from_millis(400),
        finality_depth: 1,
        gas_price_wei: 50_000_000_000,
        tip_floor_wei: 1_000_000_000,
        settle_fee_micro_usd: 0,
        tokens: &[usdc("0x4fCF1784B31630811181f670Aea7A7bEF803eaED")],
    },
];

/// The row of a CAIP-2 id.
pub fn find_network(id: &str) -> Option<&'static NetworkRow> {
    NETWORKS.iter().find(|it| it.id == id)
}

/// The row of an x402 v1 name.
pub fn find_network_v1(name: &str) -> Option<&'static NetworkRow> {
    NETWORKS.iter().find(|it| it.v1_name == name)
}

/// The token that configuration calls `symbol` (case does not matter) on the network `id`.
pub fn find_token(id: &str, symbol: &str) -> Option<&'static TokenRow> {
    find_network(id)?.tokens.iter().find(|it| it.symbol.eq_ignore_ascii_case(symbol))
}

/// USDC where its domain name is the long one.
const fn usd_coin(address: &'static str) -> TokenRow {
    TokenRow { symbol: "usdc", address, decimals: 6, name: "USD Coin", version: "2" }
}

/// USDC where its domain name is the short one.
const fn usdc(address: &'static str) -> TokenRow {
    TokenRow { symbol: "usdc", address, decimals: 6, name: "USDC", version: "2" }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use farebox_protocol::Network;

    use super::*;
    use crate::evm::EvmAddress;

    #[test]
    fn every_row_is_sane() {
        for row in NETWORKS {
            let network: Network = row.id.parse().unwrap();
            assert!(network.evm_chain_id().is_some(), "{row:?}");
            assert!(Duration::from_millis(100) <= row.block_time, "{row:?}");
            assert!(row.block_time <= Duration::from_secs(15), "{row:?}");
            assert!((1..=100).contains(&row.finality_depth), "{row:?}");
            assert!(0 < row.gas_price_wei && row.tip_floor_wei <= row.gas_price_wei, "{row:?}");
            assert_eq!(row.kind == NetworkKind::Test, row.settle_fee_micro_usd == 0, "{row:?}");
            assert!(!row.tokens.is_empty() && !row.display_name.is_empty(), "{row:?}");
            for token in row.tokens {
                let address: EvmAddress = token.address.parse().unwrap();
                assert_eq!(address.to_string(), token.address, "not EIP-55: {token:?}");
                assert!(token.decimals <= 18 && !token.name.is_empty(), "{token:?}");
                assert!(!token.version.is_empty(), "{token:?}");
                let symbol = token.symbol;
                assert_eq!(symbol, symbol.to_ascii_lowercase(), "{token:?}");
                assert_eq!(find_token(row.id, &symbol.to_uppercase()), Some(token));
            }
            assert_eq!(find_network(row.id), Some(row));
            assert_eq!(find_network_v1(row.v1_name), Some(row));
        }
        assert_eq!(find_network("eip155:31337"), None);
        assert_eq!(find_token("eip155:8453", "usdt"), None);
    }

    #[test]
    fn nothing_is_listed_twice() {
        let unique = |fields: Vec<&str>| fields.iter().collect::<HashSet<_>>().len();
        assert_eq!(unique(NETWORKS.iter().map(|it| it.id).collect()), NETWORKS.len());
        assert_eq!(unique(NETWORKS.iter().map(|it| it.v1_name).collect()), NETWORKS.len());
        assert_eq!(unique(NETWORKS.iter().map(|it| it.display_name).collect()), NETWORKS.len());
        let tokens: Vec<&str> =
            NETWORKS.iter().flat_map(|it| it.tokens).map(|it| it.address).collect();
        assert_eq!(unique(tokens.clone()), tokens.len());
    }
}
