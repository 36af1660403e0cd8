//! x402-rs' facilitator, put together from its published crates as its own binary does it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use alloy_provider::Provider as _;
use anyhow::{Result, anyhow};
use serde_json::json;
use tokio::net::TcpListener;
use x402_chain_eip155::V2Eip155Exact;
use x402_chain_eip155::chain::config::Eip155ChainConfig;
use x402_chain_eip155::chain::{
    Eip155ChainProvider, Eip155ChainReference, Eip155MetaTransactionProvider as _,
};
use x402_facilitator_local::{FacilitatorLocal, handlers};
use x402_types::chain::{ChainId, ChainRegistry, FromConfig as _};
use x402_types::scheme::{
    SchemeBlueprints, SchemeRegistry, X402SchemeFacilitator, X402SchemeFacilitatorBuilder,
    X402SchemeId,
};

use super::node::CHAIN_ID;

/// How often it looks for receipts. Left alone, it would every 7 s, whatever the chain.
const POLL: Duration = Duration::from_millis(10);

/// The crate's scheme, for a chain that is the only one: its binary has an enum of chains instead.
struct Exact;

impl X402SchemeId for Exact {
    fn namespace(&self) -> &str {
        V2Eip155Exact.namespace()
    }

    fn scheme(&self) -> &str {
        V2Eip155Exact.scheme()
    }
}

impl X402SchemeFacilitatorBuilder<&Arc<Eip155ChainProvider>> for Exact {
    fn build(
        &self,
        provider: &Arc<Eip155ChainProvider>,
        config: Option<serde_json::Value>,
    ) -> Result<Box<dyn X402SchemeFacilitator>, Box<dyn std::error::Error>> {
        V2Eip155Exact.build(Arc::clone(provider), config)
    }
}

/// Serves on a free port and says which on the first line.
pub async fn serve(rpc: &str, key: &str) -> Result<()> {
    let config = Eip155ChainConfig {
        chain_reference: Eip155ChainReference::new(CHAIN_ID),
        inner: serde_json::from_value(json!({"signers": [key], "rpc": [{"http": rpc}]}))?,
    };
    let provider = Eip155ChainProvider::from_config(&config)
        .await
        .map_err(|error| anyhow!("x402-rs' provider: {error}"))?;
    provider.inner().client().set_poll_interval(POLL);
    let id = ChainId::from(Eip155ChainReference::new(CHAIN_ID));
    let chains = ChainRegistry::new(HashMap::from([(id, Arc::new(provider))]));
    let blueprints = SchemeBlueprints::new().and_register(Exact);
    let schemes = serde_json::from_value(json!([{"id": "v2-eip155-exact", "chains": "eip155:*"}]))?;
    let registry = SchemeRegistry::build(chains, blueprints, &schemes);
    let routes = handlers::routes().with_state(Arc::new(FacilitatorLocal::new(registry)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    Ok(axum::serve(listener, routes).await?)
}
