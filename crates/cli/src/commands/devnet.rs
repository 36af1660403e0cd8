//! `farebox devnet`: the dev chain alone, until it is stopped.

use farebox_devnet::{Devnet, DevnetConfig, Mining};

use crate::args::DevnetArgs;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::shutdown::StopSignals;

/// Runs the chain and prints how to use it.
pub(crate) async fn run(args: &DevnetArgs, output: &Output) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen()?;
    let config = DevnetConfig {
        listen: args.listen,
        mining: args.block_time.map_or(Mining::Instant, Mining::Every),
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(config).await.map_err(|error| {
        Failure::new("the dev chain did not start")
            .because(error)
            .help("choose another address with `--listen`, such as `--listen 127.0.0.1:0`")
    })?;
    output.result(devnet.banner());
    output.result("Stop it with Ctrl-C.");
    signals.next().await;
    devnet.shutdown().await;
    Ok(Exit::Done)
}
