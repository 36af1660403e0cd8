//! The process ends between two steps of a broadcast; the next one goes on with the same bytes. And the
//! chain takes back what it had said.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use farebox_chains::{
    Batching, Facilitator, Finality, FinalityStep, LocalFacilitator, LogError, LoggedTransaction,
    Lookup, MemoryTransactionLog, NetworkConfig, SettleError, TransactionEnd, TransactionLog,
};
use farebox_devnet::{DEV_ACCOUNTS, Mining};
use farebox_protocol::Network;
use farebox_protocol::wire::SettleRequest;
use futures_util::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::faults::{Fault, Node};
use crate::support::{
    PAY_TO, World, demand, facilitator, key, memory, network_config, now, pay, payer, until,
};

/// A log that misbehaves.
#[derive(Debug, Default)]
struct Log {
    kept: Arc<MemoryTransactionLog>,
    /// Nobody gets past a record.
    hangs: AtomicBool,
    /// Nothing can be recorded.
    fails: AtomicBool,
}

impl Log {
    fn of(kept: &Arc<MemoryTransactionLog>) -> Arc<Self> {
        Arc::new(Self { kept: Arc::clone(kept), ..Self::default() })
    }
}

#[async_trait]
impl TransactionLog for Log {
    async fn record(&self, transaction: &LoggedTransaction) -> Result<(), LogError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(LogError("the disk is full".into()));
        }
        self.kept.record(transaction).await?;
        if self.hangs.load(Ordering::SeqCst) { pending().await } else { Ok(()) }
    }

    async fn open(&self, network: &Network) -> Result<Vec<LoggedTransaction>, LogError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(LogError("the disk is gone".into()));
        }
        self.kept.open(network).await
    }

    async fn end(
        &self,
        network: &Network,
        ended: &[([u8; 32], TransactionEnd)],
    ) -> Result<(), LogError> {
        self.kept.end(network, ended).await
    }
}

/// A process on the dev chain that can end.
struct Process {
    facilitator: LocalFacilitator,
    stop: CancellationToken,
}

impl Process {
    fn start(world: &World, config: NetworkConfig, log: &Arc<impl TransactionLog>) -> Self {
        let log = Arc::clone(log);
        let keys = vec![key(DEV_ACCOUNTS[0].private_key.0)];
        let (tasks, stop) = (world.tasks.clone(), CancellationToken::new());
        let facilitator =
            LocalFacilitator::new(vec![config], keys, log, tasks, stop.clone()).unwrap();
        Self { facilitator, stop }
    }

    /// Settles until it ends, which is once `reached` returns.
    async fn die<F: Future<Output = bool>>(
        self,
        requests: &[SettleRequest],
        what: &str,
        reached: impl FnMut() -> F,
    ) {
        let settle = requests.iter().map(|it| self.facilitator.settle(it, now()));
        tokio::select! {
            results = join_all(settle) => panic!("{results:?}"),
            () = until(what, reached) => self.stop.cancel(),
        }
    }
}

fn through(node: &Node) -> NetworkConfig {
    NetworkConfig {
        settle_wait: Duration::from_secs(20),
        ..network_config(std::slice::from_ref(&node.url))
    }
}

fn hash(kept: &LoggedTransaction) -> String {
    format!("0x{}", hex::encode(kept.hash))
}

async fn finish(world: World, node: &Node, last: Process) {
    last.stop.cancel();
    node.stop();
    world.end().await;
}

/// The only one that was ever kept.
fn only(kept: &MemoryTransactionLog) -> (LoggedTransaction, Option<TransactionEnd>) {
    let [only] = <[_; 1]>::try_from(kept.all()).unwrap();
    only
}

async fn until_ended(kept: &MemoryTransactionLog) {
    until("all have ended", || async { kept.all().iter().all(|(_, end)| end.is_some()) }).await;
}

#[tokio::test]
async fn a31_killed_between_record_and_broadcast() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, &[]).await;
    let kept = memory();
    let log = Log::of(&kept);
    log.hangs.store(true, Ordering::SeqCst);
    let request = pay(&payer(), &demand(1_000), 1);
    let first = Process::start(&world, through(&node), &log);
    first
        .die(std::slice::from_ref(&request), "it is kept", || async { kept.all().len() == 1 })
        .await;
    assert_eq!((node.sends(), world.balance(PAY_TO).await), (0, 0));

    let next = Process::start(&world, through(&node), &kept);
    // Nobody has to ask for it: what is kept is sent.
    until("it landed", || async { world.balance(PAY_TO).await == 1_000 }).await;
    let settlement = next.facilitator.settle(&request, now()).await.unwrap();
    until_ended(&kept).await;
    let (only, end) = only(&kept);
    assert_eq!((settlement.transaction, end), (hash(&only), Some(TransactionEnd::Mined)));
    assert_eq!(node.different(), 1);
    assert_eq!(world.transactions_of(&facilitator()).await, 1);
    finish(world, &node, next).await;
}

#[tokio::test]
async fn a31_killed_between_broadcast_and_answer() {
    for lost in [&[][..], &[Fault::Lose; 4][..]] {
        let world = World::start(Mining::Manual, 1).await;
        let node = Node::start(&world, lost).await;
        let kept = memory();
        let request = pay(&payer(), &demand(1_000), 1);
        let first = Process::start(&world, through(&node), &kept);
        first
            .die(std::slice::from_ref(&request), "it is sent", || async { node.sends() == 1 })
            .await;

        let next = Process::start(&world, through(&node), &kept);
        let mine = async {
            let signer = facilitator();
            let pending = || world.rpc("eth_getTransactionCount", json!([signer, "pending"]));
            until("it waits", || async { pending().await == "0x1" }).await;
            world.devnet.mine();
        };
        let (result, ()) = tokio::join!(next.facilitator.settle(&request, now()), mine);
        assert_eq!(result.unwrap().transaction, hash(&only(&kept).0));
        assert_eq!((node.different(), world.balance(PAY_TO).await), (1, 1_000));
        finish(world, &node, next).await;
    }
}

/// What would happen without the log: the positive control of the two above.
#[tokio::test]
async fn a31_who_forgets_what_was_signed_signs_again() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, &[Fault::Hoard]).await;
    let request = pay(&payer(), &demand(1_000), 1);
    let first = Process::start(&world, through(&node), &memory());
    first.die(std::slice::from_ref(&request), "it is sent", || async { node.sends() == 1 }).await;
    // Others move the price in the meantime.
    world.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x77359400"])).await;
    world.devnet.mine();
    let next = Process::start(&world, through(&node), &memory());
    next.facilitator.settle(&request, now()).await.unwrap();
    assert_eq!(node.different(), 2);
    finish(world, &node, next).await;
}

#[tokio::test]
async fn a_number_of_an_earlier_process_is_not_given_away() {
    let world = World::start(Mining::Instant, 1).await;
    // The node says that it took the first, and keeps it to itself.
    let node = Node::start(&world, &[Fault::Hoard]).await;
    let kept = memory();
    let requests = [1, 2].map(|number| pay(&payer(), &demand(10), number));
    let first = Process::start(&world, through(&node), &kept);
    first.die(&requests[..1], "it is sent", || async { node.sends() == 1 }).await;

    let direct = network_config(&[world.devnet.url()]);
    let next = Process::start(&world, direct, &kept);
    next.facilitator.settle(&requests[1], now()).await.unwrap();
    let settlement = next.facilitator.settle(&requests[0], now()).await.unwrap();
    let all = kept.all();
    let nonces: Vec<u64> = all.iter().map(|(it, _)| it.nonce).collect();
    assert_eq!((nonces, settlement.transaction), (vec![0, 1], hash(&all[0].0)));
    assert_eq!(world.balance(PAY_TO).await, 20);
    finish(world, &node, next).await;
}

#[tokio::test]
async fn members_of_a_batch_find_it_again() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let kept = memory();
    let config = || NetworkConfig { batching: Batching::default(), ..through(&node) };
    let requests: Vec<_> = (0..12).map(|number| pay(&payer(), &demand(10), number)).collect();
    let first = Process::start(&world, config(), &kept);
    let all_kept = || async {
        let payments = kept.all().iter().map(|(it, _)| it.payments.len()).sum::<usize>();
        payments == 12 && node.different() == kept.all().len()
    };
    first.die(&requests, "all are sent", all_kept).await;
    let different = node.different();
    assert!((2..12).contains(&different), "{different}");

    let next = Process::start(&world, config(), &kept);
    let settle = join_all(requests.iter().map(|it| next.facilitator.settle(it, now())));
    let mine = async {
        until("they land", || async {
            world.devnet.mine();
            world.balance(PAY_TO).await == 120
        })
        .await;
    };
    let (results, ()) = tokio::join!(settle, mine);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!((node.different(), kept.all().len()), (different, different));
    finish(world, &node, next).await;
}

#[tokio::test]
async fn the_price_is_raised_after_a_restart_and_nothing_else_changes() {
    let world = World::start(Mining::Manual, 1).await;
    let node = Node::start(&world, &[]).await;
    let kept = memory();
    let request = pay(&payer(), &demand(1_000), 1);
    let first = Process::start(&world, through(&node), &kept);
    first.die(std::slice::from_ref(&request), "it is sent", || async { node.sends() == 1 }).await;
    let next = Process::start(&world, through(&node), &kept);
    let raise = async {
        // A hundred gwei, which is more than it offers.
        world.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x174876e800"])).await;
        world.devnet.mine();
        until("a dearer version was sent", || async { node.different() == 2 }).await;
        until("it is mined", || async {
            world.devnet.mine();
            world.balance(PAY_TO).await == 1_000
        })
        .await;
    };
    let (result, ()) = tokio::join!(next.facilitator.settle(&request, now()), raise);
    until_ended(&kept).await;
    let all = kept.all();
    let [(old, old_end), (new, new_end)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((old.nonce, &old.payments), (new.nonce, &new.payments));
    assert_eq!(*old_end, Some(TransactionEnd::Superseded));
    assert_eq!(*new_end, Some(TransactionEnd::Mined));
    assert_eq!(result.unwrap().transaction, hash(new));
    finish(world, &node, next).await;
}

#[tokio::test]
async fn nothing_is_sent_that_is_not_kept() {
    let world = World::start(Mining::Instant, 1).await;
    let node = Node::start(&world, &[]).await;
    let kept = memory();
    let log = Log::of(&kept);
    log.fails.store(true, Ordering::SeqCst);
    let process = Process::start(&world, through(&node), &log);
    let request = pay(&payer(), &demand(1_000), 1);
    let not_read = process.facilitator.settle(&request, now()).await;
    log.fails.store(false, Ordering::SeqCst);
    process.facilitator.settle(&request, now()).await.unwrap();
    log.fails.store(true, Ordering::SeqCst);
    let second = pay(&payer(), &demand(1_000), 2);
    let not_kept = process.facilitator.settle(&second, now()).await;
    for (result, why) in [(not_read, "the disk is gone"), (not_kept, "the disk is full")] {
        let Err(SettleError::NotSent(error)) = result else { panic!("{result:?}") };
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!((node.sends(), world.balance(PAY_TO).await), (1, 1_000));
    log.fails.store(false, Ordering::SeqCst);
    process.facilitator.settle(&second, now()).await.unwrap();
    assert_eq!(world.balance(PAY_TO).await, 2_000);
    finish(world, &node, process).await;
}

fn deep(config: NetworkConfig, blocks: u32) -> NetworkConfig {
    let steps = vec![FinalityStep { above_millionths: 0, blocks }];
    NetworkConfig { finality: Finality { steps }, ..config }
}

/// The block with the payment goes; the same bytes are sent until another has it.
#[tokio::test]
async fn a9_what_a_reorg_takes_back_is_sent_again_with_the_same_bytes() {
    for restarts in [false, true] {
        let world = World::start(Mining::Instant, 1).await;
        let node = Node::start(&world, &[]).await;
        let kept = memory();
        let config = || deep(through(&node), 6);
        let mut process = Process::start(&world, config(), &kept);
        let before = world.rpc("evm_snapshot", json!([])).await;
        let request = pay(&payer(), &demand(1_000), 1);
        let settlement = process.facilitator.settle(&request, now()).await.unwrap();
        assert_eq!(only(&kept).1, None);
        if restarts {
            process.stop.cancel();
        }
        assert_eq!(world.rpc("evm_revert", json!([before])).await, true);
        if restarts {
            process = Process::start(&world, config(), &kept);
        } else {
            assert_eq!(world.balance(PAY_TO).await, 0);
        }
        until("it lands again", || async { world.balance(PAY_TO).await == 1_000 }).await;
        let again = process.facilitator.settle(&request, now()).await.unwrap();
        assert_eq!(again, settlement);
        assert_eq!((node.different(), only(&kept).1), (1, None));
        for _ in 0..6 {
            world.devnet.mine();
        }
        until_ended(&kept).await;
        assert_eq!(only(&kept).1, Some(TransactionEnd::Mined));
        let landed = process.facilitator.lookup(&request, now()).await.unwrap();
        assert_eq!(landed, Lookup::Landed(settlement));
        assert_eq!(world.transactions_of(&facilitator()).await, 1);
        finish(world, &node, process).await;
    }
}
