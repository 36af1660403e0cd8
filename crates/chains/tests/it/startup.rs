//! A wrong configuration does not start.

use farebox_chains::{
    EvmAddress, Exact, ExactPermit2, Facilitator, LocalFacilitator, NetworkConfig, Scheme,
    SetupError, TokenConfig, Upto,
};
use farebox_devnet::Mining;
use farebox_protocol::Network;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{World, memory, network_config, payer, use_tls};

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
async fn an_offer_wants_its_contracts() {
    let change = |it| NetworkConfig { offers: vec![&Exact, &ExactPermit2, &Upto], ..it };
    assert_eq!(problems(change).await, Vec::<String>::new());
    let world = World::with(Mining::Instant, vec![payer()], change).await;
    let proxy = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";
    world.rpc("anvil_setCode", json!([proxy, "0x"])).await;
    let problems: Vec<String> =
        world.facilitator.check().await.iter().map(ToString::to_string).collect();
    let expected = format!("there is no contract x402UptoPermit2Proxy at {proxy}");
    assert!(matches!(problems.as_slice(), [one] if one.ends_with(&expected)), "{problems:?}");
    assert!(problems[0].contains("`upto` cannot be settled"), "{problems:?}");
    let kinds = world.facilitator.supported().await.unwrap().kinds;
    assert!(kinds.iter().all(|it| it.scheme == "exact"), "{kinds:?}");
    world.end().await;
}

/// Run-time code of a token that knows no EIP-3009: it answers nothing but `balanceOf`.
const PLAIN_TOKEN: &str = "0x60003560e01c6370a08231146010575f5ffd5b60015f5260205ff3";

#[tokio::test]
async fn a_token_needs_eip3009_where_it_is_offered_by_it() {
    let lists: [(Vec<&'static dyn Scheme>, bool); 2] =
        [(vec![&Exact, &Upto], false), (vec![&ExactPermit2, &Upto], true)];
    for (offers, sound) in lists {
        let change = |it| NetworkConfig { offers, ..it };
        let world = World::with(Mining::Instant, vec![payer()], change).await;
        world.rpc("anvil_setCode", json!([crate::support::TOKEN, PLAIN_TOKEN])).await;
        let problems = world.facilitator.check().await;
        assert_eq!(problems.is_empty(), sound, "{problems:?}");
        world.end().await;
    }
}

#[tokio::test]
async fn what_cannot_be_set_up_is_refused_at_once() {
    use_tls();
    let new = |networks, keys| {
        LocalFacilitator::new(
            networks,
            keys,
            memory(),
            TaskTracker::new(),
            CancellationToken::new(),
        )
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
