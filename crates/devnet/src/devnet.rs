//! A running dev chain: the socket, the miner, and helpers for tests that need no HTTP.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use alloy_primitives::{Address, U256};
use axum::serve::ListenerExt;
use tokio::{net::TcpListener, sync::watch, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accounts::{DEV_ACCOUNTS, DevAccount},
    banner::Banner,
    chain::Chain,
    clock,
    config::{DevnetConfig, Mining},
    contracts::{self, TOKEN_ADDRESS},
    genesis::GenesisError,
    http::{self, Node},
};

/// How long a shutdown waits for open requests.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// A dev chain that is up; dropping it stops it without waiting, [`Devnet::shutdown`] waits.
#[derive(Debug)]
pub struct Devnet {
    address: SocketAddr,
    chain: Arc<RwLock<Chain>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Why the dev chain did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// The address cannot be listened on; choose another.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Blocks cannot follow each other without any time between them.
    #[error("the time between blocks must not be zero")]
    BlockTime,
    /// The first block could not be made: a defect of this build.
    #[error("the first block could not be made")]
    Genesis(#[from] GenesisError),
}

impl Devnet {
    /// Makes the first block, listens, and mines as configured, until dropped or shut down.
    pub async fn start(config: DevnetConfig) -> Result<Self, DevnetError> {
        if config.mining == Mining::Every(Duration::ZERO) {
            return Err(DevnetError::BlockTime);
        }
        let chain = Chain::new(&config, clock::unix_now())?;
        let chain = Arc::new(RwLock::new(chain));
        let listen_error = |source| DevnetError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let (mining, modes) = watch::channel(config.mining);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let node = Node { chain: Arc::clone(&chain), mining };
        tasks.spawn(serve(listener, node, stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(mine(Arc::clone(&chain), modes)));
        tasks.close();
        Ok(Self { address, chain, stop, tasks })
    }

    /// Where JSON-RPC is served, as `http://127.0.0.1:8545`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The socket address of [`Devnet::url`].
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The funded accounts, with their keys.
    pub fn accounts(&self) -> &'static [DevAccount] {
        &DEV_ACCOUNTS
    }

    /// The address of the USDC-like token.
    pub fn token(&self) -> Address {
        TOKEN_ADDRESS
    }

    /// EIP-155 chain id.
    pub fn chain_id(&self) -> u64 {
        self.read().chain_id()
    }

    /// Number of the newest block.
    pub fn block_number(&self) -> u64 {
        self.read().head()
    }

    /// Mines one block of what waits, perhaps an empty one; returns its number.
    pub fn mine(&self) -> u64 {
        self.write().mine(clock::unix_now())
    }

    /// Sets the token balance of `owner`, in atomic units (6 decimals), without a transaction.
    pub fn set_token_balance(&self, owner: Address, units: u128) {
        contracts::deal(&mut self.write().state, owner, U256::from(units));
    }

    /// Sets the ether balance of `owner` in wei, without a transaction.
    pub fn set_balance(&self, owner: Address, wei: U256) {
        self.write().state.set_balance(owner, wei);
    }

    /// Moves the chain's time forward; the next block shows it.
    pub fn increase_time(&self, seconds: u64) {
        self.write().time.increase(seconds);
    }

    /// Makes the chain's time `timestamp`, Unix seconds, from now on; blocks never go back in time.
    pub fn set_time(&self, timestamp: u64) {
        self.write().time.set_now(clock::unix_now(), timestamp);
    }

    /// Remembers this moment for [`Devnet::revert`].
    pub fn snapshot(&self) -> u64 {
        self.write().snapshot()
    }

    /// Goes back to a snapshot, which is used up with all later ones; false if it is unknown.
    #[must_use = "false means that nothing was reverted"]
    pub fn revert(&self, snapshot: u64) -> bool {
        self.write().revert(snapshot)
    }

    /// What to show a person who started the chain by hand.
    pub fn banner(&self) -> Banner {
        Banner { url: self.url(), chain_id: self.chain_id() }
    }

    /// Stops listening and mining, and waits until both have stopped; a client that holds its
    /// connection open in the middle of a request is waited for two seconds.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if time::timeout(SHUTDOWN, self.tasks.wait()).await.is_err() {
            tracing::warn!("a connection to the dev chain is still open");
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Chain> {
        self.chain.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, node: Node, stop: CancellationToken) {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small answers may wait for one another");
        }
    });
    let serving =
        axum::serve(listener, http::router(node)).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the dev chain stopped serving");
    }
}

/// Mines on time while the mode is [`Mining::Every`]; follows changes of the mode.
async fn mine(chain: Arc<RwLock<Chain>>, mut modes: watch::Receiver<Mining>) {
    loop {
        let mode = *modes.borrow_and_update();
        let Mining::Every(interval) = mode else {
            if modes.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        ticks.tick().await; // the first tick is immediate
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    chain.write().unwrap_or_else(PoisonError::into_inner).mine(clock::unix_now());
                }
                changed = modes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
    }
}
