//! Methods that tell what a transaction should offer to pay.

use alloy_consensus::Transaction;
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{U64, U128, U256};
use serde_json::{Number, Value, json};

use super::{Answer, Params, RpcError, params::value};
use crate::{blocks::Block, chain::Chain};

/// Tip suggested while nobody has paid one, wei per gas (1 gwei, as anvil does).
const FIRST_TIP: u128 = 1_000_000_000;

/// Blocks whose tips the suggestion looks at, and the percentile it takes (go-ethereum's defaults).
const TIP_BLOCKS: u64 = 20;
const TIP_PERCENTILE: usize = 60;

/// Most blocks that one fee history covers (go-ethereum's limit).
const HISTORY_LIMIT: u64 = 1_024;

/// Most percentiles that may be asked for.
const PERCENTILE_LIMIT: usize = 100;

/// `eth_gasPrice()`: the coming base fee and a tip.
pub(super) fn gas_price(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(U128::from(suggested_tip(chain).saturating_add(chain.base_fee().into())))
}

/// `eth_maxPriorityFeePerGas()`.
pub(super) fn priority_fee(chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(U128::from(suggested_tip(chain)))
}

/// `eth_blobBaseFee()`: there are no blobs here, so their fee stands at its minimum.
pub(super) fn blob_base_fee(_chain: &Chain, _params: &Params, _now: u64) -> Answer {
    value(U256::ONE)
}

/// The tip that 60 % of the recent transactions did not exceed, wei per gas.
pub(super) fn suggested_tip(chain: &Chain) -> u128 {
    let head = chain.head();
    let recent = chain.blocks.range(head.saturating_sub(TIP_BLOCKS.saturating_sub(1)), head);
    let mut tips: Vec<u128> =
        recent.flat_map(tips_and_gas).map(|(tip, _)| tip).filter(|tip| *tip > 0).collect();
    tips.sort_unstable();
    let last = tips.len().saturating_sub(1);
    let index = last.saturating_mul(TIP_PERCENTILE).div_ceil(100);
    tips.get(index).copied().unwrap_or(FIRST_TIP)
}

/// `eth_feeHistory(count, newest, percentiles)`.
pub(super) fn history(chain: &Chain, params: &Params, _now: u64) -> Answer {
    let count = params.required_u64(0)?.min(HISTORY_LIMIT);
    let newest = chain.number(params.required::<BlockNumberOrTag>(1)?);
    if newest > chain.head() {
        return Err(RpcError::server(format!(
            "request beyond head block: requested {newest}, head {}",
            chain.head()
        )));
    }
    let percentiles: Option<Vec<Number>> = params.optional(2)?;
    let percentiles = percentiles.as_deref().map(hundredths).transpose()?;
    let oldest = newest.saturating_add(1).saturating_sub(count).max(chain.blocks.first());
    let blocks: Vec<&Block> =
        if count == 0 { Vec::new() } else { chain.blocks.range(oldest, newest).collect() };
    let mut base_fees: Vec<U64> =
        blocks.iter().map(|block| U64::from(block.header.base_fee_per_gas.unwrap_or(0))).collect();
    if !blocks.is_empty() {
        let next = chain.blocks.by_number(newest.saturating_add(1));
        let next = next.and_then(|block| block.header.base_fee_per_gas);
        base_fees.push(U64::from(next.unwrap_or_else(|| chain.base_fee())));
    }
    let ratios: Vec<Value> = blocks.iter().map(|block| gas_ratio(block)).collect();
    let mut answer = json!({
        "oldestBlock": U64::from(oldest),
        "baseFeePerGas": base_fees,
        "gasUsedRatio": ratios,
        "baseFeePerBlobGas": vec![U64::from(1); base_fees.len()],
        "blobGasUsedRatio": vec![0; blocks.len()],
    });
    if let (Some(percentiles), Value::Object(fields)) = (percentiles, &mut answer) {
        let rewards: Vec<Vec<U128>> =
            blocks.iter().map(|block| rewards(block, &percentiles)).collect();
        fields.insert("reward".to_owned(), value(rewards)?);
    }
    Ok(answer)
}

/// Percentiles in hundredths of a per cent, checked to be in order and within 0 and 100.
fn hundredths(percentiles: &[Number]) -> Result<Vec<u64>, RpcError> {
    if percentiles.len() > PERCENTILE_LIMIT {
        return Err(RpcError::invalid_params("over the query limit of 100 percentiles"));
    }
    let mut parsed = Vec::with_capacity(percentiles.len());
    for percentile in percentiles {
        let one = decimal_hundredths(&percentile.to_string())
            .filter(|one| *one <= 10_000 && parsed.last().is_none_or(|last| last <= one))
            .ok_or_else(|| {
                RpcError::invalid_params(format!("invalid reward percentile: {percentile}"))
            })?;
        parsed.push(one);
    }
    Ok(parsed)
}

fn decimal_hundredths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().chain("00".chars()).take(2).collect();
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(fraction.parse().ok()?)
}

/// `gasUsed` / `gasLimit` of a block, to six decimals.
fn gas_ratio(block: &Block) -> Value {
    let millionths = u128::from(block.header.gas_used)
        .saturating_mul(1_000_000)
        .checked_div(u128::from(block.header.gas_limit))
        .unwrap_or_default();
    let (whole, fraction) = (millionths.div_euclid(1_000_000), millionths.rem_euclid(1_000_000));
    serde_json::from_str(&format!("{whole}.{fraction:06}")).unwrap_or(Value::Null)
}

/// Tip and gas of each transaction of a block.
fn tips_and_gas(block: &Block) -> impl Iterator<Item = (u128, u64)> {
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    block.mined.iter().map(move |one| {
        (one.tx.effective_tip_per_gas(base_fee).unwrap_or_default(), one.receipt.gas_used)
    })
}

/// The tip at each percentile of the block's gas, transactions ordered by tip.
fn rewards(block: &Block, percentiles: &[u64]) -> Vec<U128> {
    let mut tips: Vec<(u128, u64)> = tips_and_gas(block).collect();
    tips.sort_unstable();
    let at = |percentile: &u64| {
        let wanted = u128::from(block.header.gas_used)
            .saturating_mul(u128::from(*percentile))
            .div_euclid(10_000);
        let mut gas = 0_u128;
        let found = tips.iter().find(|(_, used)| {
            gas = gas.saturating_add(u128::from(*used));
            wanted <= gas
        });
        U128::from(found.or(tips.last()).map_or(0, |(tip, _)| *tip))
    };
    percentiles.iter().map(at).collect()
}
