//! Keys for networks that behave otherwise than the table says, and for what is paid on them besides.

use std::time::Duration;

use farebox_chains::{
    ApprovalGrants, Batching, EvmAddress, Finality, FinalityStep, NetworkConfig, PermitSponsoring,
};

use super::super::problem::{Problem, Problems};
use super::super::section::{Section, Value};
use super::super::values;

/// What a file says of one network beyond what must be said.
pub(super) struct Tuning {
    block_time: Option<Duration>,
    confirmations: Option<u32>,
    finality: Option<Finality>,
    batching: Option<Batching>,
    batch_wait: Option<Duration>,
    tip_floor_wei: Option<u128>,
    gas_price_cap_wei: Option<u128>,
    signer_reserve_wei: Option<u128>,
    permits: Option<PermitSponsoring>,
    approvals: Option<ApprovalGrants>,
    smart_wallet_factories: Option<Vec<EvmAddress>>,
}

impl Tuning {
    /// Reads it.
    pub(super) fn read(section: &mut Section<'_>, problems: &mut Problems) -> Self {
        Self {
            block_time: section.optional("block_time", problems, values::duration),
            confirmations: section.optional("confirmations", problems, confirmations),
            finality: finality(section, problems),
            batching: section.optional("batch_max", problems, batching),
            batch_wait: section.optional("batch_wait", problems, batch_wait),
            tip_floor_wei: section.optional("tip_floor_gwei", problems, values::gwei),
            gas_price_cap_wei: section.optional("gas_price_cap_gwei", problems, values::gwei),
            signer_reserve_wei: section.optional("signer_reserve_gwei", problems, values::gwei),
            permits: section.optional("sponsor_permits", problems, permits),
            approvals: approvals(section, problems),
            smart_wallet_factories: factories(section, problems),
        }
    }

    /// Puts it in the place of what the table says.
    pub(super) fn apply(self, chain: &mut NetworkConfig) {
        chain.block_time = self.block_time.unwrap_or(chain.block_time);
        chain.confirmations = self.confirmations.unwrap_or(chain.confirmations);
        chain.finality = self.finality.unwrap_or_else(|| chain.finality.clone());
        chain.batching = self.batching.unwrap_or(chain.batching);
        chain.batch_wait = self.batch_wait.or(chain.batch_wait);
        chain.tip_floor_wei = self.tip_floor_wei.unwrap_or(chain.tip_floor_wei);
        chain.gas_price_cap_wei = self.gas_price_cap_wei.unwrap_or(chain.gas_price_cap_wei);
        chain.signer_reserve_wei = self.signer_reserve_wei.unwrap_or(chain.signer_reserve_wei);
        let sponsoring = &mut chain.sponsoring;
        sponsoring.permits = self.permits.unwrap_or(sponsoring.permits);
        sponsoring.approvals = self.approvals.or(sponsoring.approvals);
        if let Some(factories) = self.smart_wallet_factories {
            chain.smart_wallet_factories = factories;
        }
    }
}

fn confirmations(value: &Value<'_>) -> Result<u32, Problem> {
    const EXPECTED: &str = "a number of blocks, 1 to 1000";
    let count = value.count(EXPECTED)?;
    let count = u32::try_from(count).ok().filter(|it| *it <= 1000);
    count.ok_or_else(|| value.wrong(EXPECTED))
}

/// Steps of value and depth; none of them: every payment is final once it is settled.
fn finality(section: &mut Section<'_>, problems: &mut Problems) -> Option<Finality> {
    const EXPECTED: &str = "a list of steps such as [{ above = \"1.00\", blocks = 10 }]";
    let value = section.get("finality")?;
    let entries = problems.keep(value.list(EXPECTED))?;
    let steps: Vec<Option<FinalityStep>> = entries
        .iter()
        .map(|entry| {
            let mut step = problems.keep(entry.section("finality", EXPECTED))?;
            let above = step.required("above", problems, millionths);
            let blocks = step.required("blocks", problems, confirmations);
            step.close(problems);
            Some(FinalityStep { above_millionths: above?, blocks: blocks? })
        })
        .collect();
    let steps = steps.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Finality { steps })
}

/// A number of tokens, in millionths of one.
fn millionths(value: &Value<'_>) -> Result<u128, Problem> {
    let usd = values::usd(value)?;
    if usd.is_zero() {
        return Ok(0);
    }
    let rate = usd.rate(6, 0).ok().filter(|it| it.per() == 1);
    let rate = rate.ok_or_else(|| value.wrong("at most six decimals, such as \"1.00\""))?;
    Ok(rate.units())
}

/// Every entry is looked at before the first bad one ends it.
fn factories(section: &mut Section<'_>, problems: &mut Problems) -> Option<Vec<EvmAddress>> {
    const EXPECTED: &str = "a list of the factories' addresses, such as [\"0x…\"]";
    let value = section.get("smart_wallet_factories")?;
    let entries = problems.keep(value.list(EXPECTED))?;
    let factories: Vec<Option<EvmAddress>> =
        entries.iter().map(|it| problems.keep(values::evm_address(it))).collect();
    factories.into_iter().collect()
}

/// One is no company; what is said outright must work.
fn batching(value: &Value<'_>) -> Result<Batching, Problem> {
    const EXPECTED: &str = "a number of settlements in one transaction, 1 to 500";
    let max = value.count(EXPECTED)?;
    match u16::try_from(max).ok().filter(|it| *it <= 500) {
        Some(1) => Ok(Batching::Off),
        Some(max) => Ok(Batching::Required { max }),
        None => Err(value.wrong(EXPECTED)),
    }
}

/// A settlement that waits longer is one that its client no longer waits for.
fn batch_wait(value: &Value<'_>) -> Result<Duration, Problem> {
    const EXPECTED: &str = "a duration from \"1ms\" to \"5s\"";
    let wait = values::duration(value)?;
    let is_good = (Duration::from_millis(1)..=Duration::from_secs(5)).contains(&wait);
    if is_good { Ok(wait) } else { Err(value.wrong(EXPECTED)) }
}

/// What one payer is given turns it on.
fn approvals(section: &mut Section<'_>, problems: &mut Problems) -> Option<ApprovalGrants> {
    const PAYER: &str = "sponsor_approvals_gwei";
    let payer = section.optional(PAYER, problems, values::gwei);
    let day = section.get("sponsor_approvals_gwei_per_day");
    let Some(payer_max_wei) = payer else {
        if let Some(day) = day {
            let problem = day.wrong(format!("`{PAYER}` beside it, without which nothing is given"));
            problems.push(problem);
        }
        return None;
    };
    let grants = ApprovalGrants::of_payer(payer_max_wei);
    let Some(day) = day else { return Some(grants) };
    let day_max_wei = problems.keep(values::gwei(&day))?;
    if day_max_wei < payer_max_wei {
        problems.push(day.wrong(format!("at least `{PAYER}`, or no payer could be given that")));
        return None;
    }
    Some(ApprovalGrants { day_max_wei, ..grants })
}

fn permits(value: &Value<'_>) -> Result<PermitSponsoring, Problem> {
    Ok(if value.flag()? { PermitSponsoring::Submitted } else { PermitSponsoring::Ignored })
}
