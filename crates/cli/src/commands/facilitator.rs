//! `farebox facilitator`: verifies and settles for any x402 server, until it is told to stop.

use std::error::Error;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use farebox_gateway::{FacilitatorParts, FacilitatorServer, KeptTransactions, SystemClock};
use farebox_store::{Ledger as _, SqliteLedger, SqliteOptions};

use crate::args::ServeArgs;
use crate::config::Purpose;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::shutdown::{StopSignals, stopped_early};
use crate::startup::{self, Background};

/// The file in the data directory.
const STORE: &str = "facilitator.db";

/// Starts it once every network was reached, then waits.
pub(crate) async fn run(args: &ServeArgs, output: &Output) -> Result<Exit, Failure> {
    let mut signals = StopSignals::listen()?;
    let Some(config) = startup::load(&args.config, Purpose::Facilitator, output)? else {
        return Ok(Exit::Failed);
    };
    startup::announce(&config, output);
    let background = Background::default();
    let plan = &config.facilitator;
    let (Some(service), Some(data_dir)) = (plan.service(), plan.data_dir()) else {
        return Err(Failure::new("the configuration settles through others"));
    };
    let terms = Arc::new(service.terms(&config.networks, Vec::new()));
    let store = open_store(data_dir)?;
    let log = KeptTransactions::new(Arc::<SqliteLedger>::clone(&store));
    let (plan, networks) = (config.facilitator, &config.networks);
    let facilitator = tokio::select! {
        ready = startup::facilitator(plan, networks, &[], log, &background) => ready?,
        signal = signals.next() => return Ok(stopped_early(signal)),
    };
    let parts = FacilitatorParts { facilitator, clock: Arc::new(SystemClock), terms };
    let server = FacilitatorServer::start(config.server.listen, parts, config.limits).await;
    let server = server.map_err(|error| {
        Failure::new(format!("cannot listen on {}", config.server.listen))
            .because(error)
            .help("check `listen` in [server], and that nothing else uses the port")
    })?;
    output.result(format!("farebox settles on http://{}", server.local_addr()));
    let signal = signals.next().await;
    tracing::info!(%signal, "stopping: running requests are finished");
    let close = async {
        server.leave();
        tokio::time::sleep(signal.notice(config.server.lame_duck)).await;
        server.shutdown().await;
        background.end().await;
        store.close().await.map_err(|error| {
            Failure::new("the file of settlements was not closed cleanly").because(error)
        })
    };
    tokio::select! {
        closed = close => closed.map(|()| Exit::Done),
        signal = signals.next() => {
            tracing::warn!(%signal, "stopped at once; what was sent to the chain is on its way");
            Ok(Exit::Failed)
        }
    }
}

/// The file in which signed transactions are kept, in a directory that is made if it is not there.
fn open_store(data_dir: &Path) -> Result<Arc<SqliteLedger>, Failure> {
    let refused = |why: Box<dyn Error + Send + Sync>| {
        let shown = data_dir.display();
        Failure::new(format!("what is settled cannot be kept in {shown}")).because(why).help(
            "check `data_dir` in [facilitator], its permissions, and that no other farebox uses it",
        )
    };
    // It holds signed transactions: nobody else has to read it.
    let mut directory = DirBuilder::new();
    directory.recursive(true).mode(0o700);
    directory.create(data_dir).map_err(|error| refused(error.into()))?;
    let opened = SqliteLedger::open(data_dir.join(STORE), SqliteOptions::default());
    opened.map(Arc::new).map_err(|error| refused(error.into()))
}
