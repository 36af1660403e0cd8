//! What gas costs now, asked once a block.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::rpc::{Answer, Call, RpcClient, RpcError, quantity};

/// Prices for a transaction that should be in one of the next blocks, in wei for a unit of gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fees {
    /// What the next block burns.
    pub(crate) base: u128,
    /// `maxFeePerGas`: the base fee may double before the transaction waits.
    pub(crate) max: u128,
    /// `maxPriorityFeePerGas`.
    pub(crate) tip: u128,
    /// The most that is ever offered, replacements included.
    pub(crate) cap: u128,
}

/// Gas cannot be bought.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NoFees {
    #[error("the price of gas could not be learnt: {0}")]
    Rpc(RpcError),
    #[error(
        "gas costs {} gwei, over the cap of {} gwei (gas_price_cap_gwei): it is sent once gas is cheaper",
        gwei(*price),
        gwei(*cap)
    )]
    TooDear { price: u128, cap: u128 },
}

/// The prices of one network.
#[derive(Debug)]
pub(crate) struct FeeOracle {
    rpc: RpcClient,
    keep: Duration,
    tip_floor: u128,
    cap: u128,
    last: Mutex<Option<(Instant, Fees)>>,
    /// One question to the node at a time.
    asking: tokio::sync::Mutex<()>,
}

impl FeeOracle {
    /// `keep`: how long a price is good, about one block.
    pub(crate) fn new(rpc: RpcClient, keep: Duration, tip_floor: u128, cap: u128) -> Self {
        let (last, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { rpc, keep, tip_floor, cap, last, asking }
    }

    pub(crate) async fn current(&self) -> Result<Fees, NoFees> {
        if let Some(fees) = self.fresh() {
            return Ok(fees);
        }
        let _one_at_a_time = self.asking.lock().await;
        if let Some(fees) = self.fresh() {
            return Ok(fees);
        }
        let asked = Instant::now();
        let calls = [
            Call::new("eth_feeHistory", json!(["0x5", "latest", [50]])),
            Call::new("eth_maxPriorityFeePerGas", json!([])),
            Call::new("eth_gasPrice", json!([])),
        ];
        let answers = self.rpc.batch(&calls).await.map_err(NoFees::Rpc)?;
        let fees = read(&answers, self.tip_floor, self.cap)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, fees));
        Ok(fees)
    }

    fn fresh(&self) -> Option<Fees> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(at, _)| at.elapsed() < self.keep).map(|(_, fees)| fees)
    }
}

/// The prices out of what a node says. A node cannot make us pay more than the cap.
fn read(answers: &[Answer], tip_floor: u128, cap: u128) -> Result<Fees, NoFees> {
    let said = |index: usize| answers.get(index).and_then(|it| it.as_ref().ok());
    let number = |value: &Value| quantity::<u128>(value).ok();
    let history = said(0);
    let next_base =
        history.and_then(|it| it.get("baseFeePerGas")?.as_array()?.last()).and_then(number);
    let gas_price = said(2).and_then(number);
    let Some(base) = next_base.or(gas_price) else {
        let method = "eth_feeHistory";
        let error = match answers.iter().find_map(|it| it.as_ref().err()) {
            Some(error) => RpcError::Node { method, error: error.clone() },
            None => RpcError::Garbage { host: "the node".into(), what: "no price of gas" },
        };
        return Err(NoFees::Rpc(error));
    };
    let rewards = history.and_then(|it| it.get("reward")?.as_array());
    let mut rewards: Vec<u128> =
        rewards.into_iter().flatten().filter_map(|it| number(it.get(0)?)).collect();
    rewards.sort_unstable();
    let usual_tip = rewards.get(rewards.len() / 2).copied();
    let tip = said(1).and_then(number).or(usual_tip).unwrap_or(0).max(tip_floor);
    let price = base.saturating_add(tip);
    if cap < price {
        return Err(NoFees::TooDear { price, cap });
    }
    // Below the cap there is room for two replacements, where the price leaves it.
    let roomy = cap.saturating_sub(cap / 4).max(price);
    let max = base.saturating_mul(2).saturating_add(tip).min(roomy);
    Ok(Fees { base, max, tip: tip.min(max), cap })
}

/// A price as people read it: `0.05`.
fn gwei(wei: u128) -> String {
    let (whole, rest) = (wei / 1_000_000_000, wei % 1_000_000_000);
    let shown = format!("{whole}.{rest:09}");
    shown.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::NodeError;

    fn refused() -> Answer {
        Err(NodeError { code: -32601, message: "no such method".into(), data: None })
    }

    fn history(base: &str, rewards: &[&str]) -> Value {
        let rewards: Vec<Value> = rewards.iter().map(|it| json!([it])).collect();
        json!({"baseFeePerGas": ["0x1", base], "reward": rewards})
    }

    #[track_caller]
    fn check(answers: [Answer; 3], expected: (u128, u128, u128)) {
        let fees = read(&answers, 2, 1_000).unwrap();
        assert_eq!((fees.base, fees.max, fees.tip), expected, "{answers:?}");
    }

    #[test]
    fn prices() {
        let price = || Ok(json!("0x20"));
        check([Ok(history("0x10", &[])), Ok(json!("0x3")), price()], (16, 35, 3));
        check([Ok(history("0x10", &["0x0", "0x9", "0x5"])), refused(), price()], (16, 37, 5));
        check([Ok(history("0x10", &[])), refused(), price()], (16, 34, 2));
        check([refused(), refused(), price()], (32, 66, 2));
        // Twice the price would leave no room for replacements below the cap of 1,000.
        check([Ok(history("0x258", &[])), Ok(json!("0x3")), price()], (600, 750, 3));
        check([Ok(history("0x384", &[])), Ok(json!("0x3")), price()], (900, 903, 3));
    }

    #[test]
    fn a_node_that_asks_for_too_much_gets_nothing() {
        let answers = [Ok(history("0x10", &[])), Ok(json!("0xffffffff")), refused()];
        assert!(matches!(read(&answers, 2, 1_000), Err(NoFees::TooDear { cap: 1_000, .. })));
        let error = NoFees::TooDear { price: 1_050_000_000, cap: 1_000_000_000 };
        assert_eq!(
            error.to_string(),
            "gas costs 1.05 gwei, over the cap of 1 gwei (gas_price_cap_gwei): it is sent once gas is \
             cheaper"
        );
        let answers = [refused(), refused(), refused()];
        assert!(matches!(read(&answers, 2, 1_000), Err(NoFees::Rpc(RpcError::Node { .. }))));
    }
}
