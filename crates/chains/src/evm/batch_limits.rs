//! Whether settlements can go together on a network, and how many: Multicall3 must be there, and a
//! transaction must fit well into a block.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::chain::Chain;
use super::contracts::MULTICALL3;
use super::deployed::has_code;
use super::line::{Limits, Patience};
use crate::rpc::{Call, RpcError, garbage, quantity};

/// A transaction takes at most this part of a block, so that it does not wait for an empty one …
const BLOCK_SHARE: u64 = 4;
/// … and never more; since EIP-7825 none may take more than 2²⁴.
const GAS_MAX: u64 = 15_000_000;
/// How long company is waited for under load: a part of a block, within bounds.
const BLOCK_PART: u32 = 20;
const WINDOW_MIN: Duration = Duration::from_millis(2);
const WINDOW_MAX: Duration = Duration::from_millis(50);
/// After how long it is asked again whether Multicall3 has come.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// What is known of one network.
#[derive(Debug, Default)]
pub(crate) struct BatchLimits {
    known: Mutex<Known>,
    /// One question to the node at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Known {
    #[default]
    Nothing,
    There {
        gas_max: u64,
    },
    Missing {
        asked: Instant,
    },
}

impl BatchLimits {
    /// What is known and not out of date.
    fn known(&self) -> Known {
        match *self.known.lock().unwrap_or_else(PoisonError::into_inner) {
            Known::Missing { asked } if ASK_AGAIN <= asked.elapsed() => Known::Nothing,
            known @ (Known::Nothing | Known::There { .. } | Known::Missing { .. }) => known,
        }
    }

    fn learn(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl Chain {
    /// What goes together here; `None` where each settlement goes by itself.
    pub(super) async fn batch_limits(&self) -> Result<Option<Limits>, RpcError> {
        let Some(most) = self.config().batching.most() else { return Ok(None) };
        let part = self.config().block_time.checked_div(BLOCK_PART).unwrap_or_default();
        let (window, patience) = match self.config().batch_wait {
            Some(wait) => (wait, Patience::Always),
            None => (part.clamp(WINDOW_MIN, WINDOW_MAX), Patience::UnderLoad),
        };
        let limits = |gas_max| Limits { most, gas_max, window, patience };
        Ok(self.batch_gas_max().await?.map(limits))
    }

    async fn batch_gas_max(&self) -> Result<Option<u64>, RpcError> {
        match self.batch_limits.known() {
            Known::There { gas_max } => return Ok(Some(gas_max)),
            Known::Missing { .. } => return Ok(None),
            Known::Nothing => {}
        }
        let _one_at_a_time = self.batch_limits.asking.lock().await;
        match self.batch_limits.known() {
            Known::There { gas_max } => Ok(Some(gas_max)),
            Known::Missing { .. } => Ok(None),
            Known::Nothing => self.ask_batch_gas_max().await,
        }
    }

    async fn ask_batch_gas_max(&self) -> Result<Option<u64>, RpcError> {
        let calls = [
            Call::new("eth_getCode", json!([MULTICALL3, "latest"])),
            Call::new("eth_getBlockByNumber", json!(["latest", false])),
        ];
        let mut answers = self.rpc().batch(&calls).await?.into_iter().zip(&calls);
        let mut said = || {
            let (answer, call) = answers.next().ok_or(RpcError::NoEndpoint)?;
            answer.map_err(|error| RpcError::Node { method: call.method, error })
        };
        let (code, block) = (said()?, said()?);
        if !has_code(Some(&code)) {
            tracing::info!(network = %self.network(), "no Multicall3: settlements go one by one");
            self.batch_limits.learn(Known::Missing { asked: Instant::now() });
            return Ok(None);
        }
        let limit = block.get("gasLimit").ok_or_else(|| garbage("a block without a gas limit"))?;
        let gas_max = quantity::<u64>(limit)?.checked_div(BLOCK_SHARE).unwrap_or_default();
        let gas_max = gas_max.min(GAS_MAX);
        self.batch_limits.learn(Known::There { gas_max });
        Ok(Some(gas_max))
    }
}
