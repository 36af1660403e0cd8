//! `farebox-bench`: the scenarios, each against a named baseline in the same run.
//!
//! ```text
//! cargo build --release                      (in the project: the binary under test)
//! cd bench && cargo run --release -- run     (prints the ratios, writes nothing)
//! ```

mod baseline;
mod farebox;
mod ledger;
mod load;
mod paid;
mod scenario;
mod settle;
mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Compares Farebox with what else there is, in one run on one machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Runs every scenario, or the named ones.
    Run {
        /// `unpaid`, `proxy`, `verify`, `paid`, `settle`, `ledger`.
        scenarios: Vec<String>,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
        /// Interleaved measurements of each side; the median is what counts.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// The binary under test.
        #[arg(long, default_value = "../target/release/farebox")]
        farebox: std::path::PathBuf,
        /// `unpaid`, `proxy`: all cores for all processes, instead of one for the server alone.
        #[arg(long)]
        shared: bool,
        /// `settle`: lines of the facilitator's `[network]` section that make it batch.
        #[arg(long)]
        batching: Option<String>,
        /// `settle`: seconds from block to block, instead of a block a transaction.
        #[arg(long)]
        block_time: Option<u64>,
        /// `settle`: only our facilitator and the ceiling.
        #[arg(long)]
        alone: bool,
    },
    /// Serves as the upstream.
    Upstream,
    /// Serves as the minimal proxy.
    HyperProxy { upstream: String },
    /// Serves as the seller on x402-axum.
    X402Axum { facilitator: String },
    /// Serves as a facilitator that only says what it supports.
    Facilitator,
    /// Serves as x402-rs' facilitator, on a chain.
    X402Facilitator { rpc: String, key: String },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().role {
        Role::Run { scenarios, seconds, rounds, farebox, shared, batching, block_time, alone } => {
            let placement =
                if shared { scenario::Placement::Shared } else { scenario::Placement::Apart };
            let settle = settle::Mode { batching, block_time, alone };
            let plan = scenario::Plan { seconds, rounds, farebox, placement, settle };
            scenario::run(&plan, &scenarios).await
        }
        Role::Upstream => baseline::upstream().await,
        Role::HyperProxy { upstream } => baseline::hyper_proxy(&upstream).await,
        Role::X402Axum { facilitator } => baseline::x402_axum(&facilitator).await,
        Role::Facilitator => baseline::facilitator().await,
        Role::X402Facilitator { rpc, key } => settle::x402_rs::serve(&rpc, &key).await,
    }
}
