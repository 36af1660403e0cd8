//! A wrong configuration does not start.

use farebox_chains::{EvmAddress, LocalFacilitator, NetworkConfig, SetupError, TokenConfig};
use farebox_devnet::Mining;
use farebox_protocol::Network;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{World, network_config, payer, use_tls};

async fn problems(change: impl FnOnce(NetworkConfig) -> NetworkConfig) -> Vec<String> {
    let world = World::with(Mining::Instant, vec![payer()], change).await;
    let problems = world.facilitator.check().await.iter().map(ToString::to_string).collect();
    world.end().await;
    problems
}

#[tokio::test]
async fn a_good_configuration_has_no_problems() {
    assert_eq!(problems(|it| it).await, Vec::<String>::new());
    // One dead endpoint of two is none: the other does.
    let dead = |mut it: NetworkConfig| {
        it.rpc.insert(0, "http://127.0.0.1:1/".parse().unwrap());
        it
    };
    assert_eq!(problems(dead).await, Vec::<String>::new());
}

#[tokio::test]
async fn every_wrong_one_is_named() {
    let unreachable = problems(|mut it| {
        it.rpc = vec!["http://127.0.0.1:1/secret-api-key".parse().unwrap()];
        it
    });
    let unreachable = unreachable.await;
    assert_eq!(unreachable.len(), 1);
    assert!(unreachable[0].contains("no RPC endpoint answers (127.0.0.1:1)"), "{unreachable:?}");
    assert!(!unreachable[0].contains("secret"), "{unreachable:?}");

    let wrong_chain = problems(|it| NetworkConfig { network: Network::eip155(8453), ..it }).await;
    assert!(wrong_chain[0].ends_with("is of chain 84532"), "{wrong_chain:?}");

    let renamed = problems(|mut it| {
        it.tokens[0].name = "USD Coin".to_owned();
        it
    });
    let renamed = renamed.await;
    assert!(
        renamed[0].contains("name `USD Coin`, version `2`; it says name `USDC`, version `2`"),
        "{renamed:?}"
    );

    let nobody = EvmAddress::from_bytes([9; 20]);
    let nothing = problems(|mut it| {
        it.tokens.push(TokenConfig { address: nobody, ..it.tokens[0].clone() });
        it
    });
    let nothing = nothing.await;
    assert!(nothing[0].contains("there is no contract at the token's address"), "{nothing:?}");
}

#[tokio::test]
async fn what_cannot_be_set_up_is_refused_at_once() {
    use_tls();
    let new = |networks, keys| {
        LocalFacilitator::new(networks, keys, TaskTracker::new(), CancellationToken::new())
    };
    let good = || network_config(&["http://127.0.0.1:1".to_owned()]);
    assert!(matches!(new(vec![good()], vec![]), Err(SetupError::NoSigner)));
    assert!(matches!(new(vec![good(), good()], vec![payer()]), Err(SetupError::Twice(_))));
    let none = NetworkConfig { rpc: vec![], ..good() };
    assert!(matches!(new(vec![none], vec![payer()]), Err(SetupError::NoEndpoint(_))));
    let file = NetworkConfig { rpc: vec!["file:///etc/passwd".parse().unwrap()], ..good() };
    assert!(matches!(new(vec![file], vec![payer()]), Err(SetupError::Scheme { .. })));
    let solana = NetworkConfig { network: "solana:devnet".parse().unwrap(), ..good() };
    assert!(matches!(new(vec![solana], vec![payer()]), Err(SetupError::NotEvm(_))));
}
