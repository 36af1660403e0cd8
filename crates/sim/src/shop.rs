//! What is sold: the routes of the simulated gateway.

use std::sync::Arc;
use std::time::Duration;

use farebox_billing::{Ceiling, Format, Price, Usage, charge};
use farebox_chains::{EvmToken, TokenConfig, find_scheme};
use farebox_gateway::{
    GatewayConfig, Keep, Limits, Models, OfferTemplate, OfferToken, PathPattern, Route, Upstream,
    Versions,
};
use farebox_protocol::{Amount, Network};
use farebox_store::SettleMode;

use crate::plan::Plan;
use crate::run::Unbuilt;

/// The token that everything is paid in.
const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
/// Who is paid.
const PAY_TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
/// Of the token.
pub(crate) const DECIMALS: u8 = 6;
/// How long answers are kept, where they are.
const KEPT: Duration = Duration::from_mins(2);
/// Of what length.
const KEPT_BYTES: usize = 64 * 1024;
/// How long an authorisation lives.
const LIFE_SECONDS: u64 = 300;

/// The prices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prices {
    tokens: Price,
    flat: Price,
}

impl Prices {
    pub(crate) fn new() -> Result<Self, Unbuilt> {
        let usd = |text: &str| text.parse().map_err(Unbuilt::new);
        let tokens = Price::Tokens { input_per_1m: usd("10")?, output_per_1m: usd("60")? };
        Ok(Self { tokens, flat: Price::PerRequest(usd("0.01")?) })
    }

    /// What a completion costs.
    pub(crate) fn of_tokens(&self, input: u64, output: u64) -> Amount {
        charge(&self.tokens, &Usage::reported(input, output), DECIMALS)
    }

    /// What a thing costs.
    pub(crate) fn of_thing(&self) -> Amount {
        charge(&self.flat, &Usage::default(), DECIMALS)
    }
}

/// The token, as the facilitator knows it.
pub(crate) fn token() -> Result<EvmToken, Unbuilt> {
    let config = TokenConfig {
        address: USDC.parse().map_err(Unbuilt::new)?,
        decimals: DECIMALS,
        name: "USDC".to_owned(),
        version: "2".to_owned(),
    };
    EvmToken::new(Network::eip155(84532), config)
        .ok_or_else(|| Unbuilt::new("the token is on no EVM network"))
}

/// The gateway's configuration.
pub(crate) fn config(plan: &Plan, prices: Prices) -> Result<GatewayConfig, Unbuilt> {
    let upstream = Arc::new(Upstream {
        name: "simulated".to_owned(),
        url: "http://upstream.test".parse().map_err(Unbuilt::new)?,
        api_key: None,
        head_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(15),
    });
    let route = |name: &str, price, format, settle, schemes: &[&'static str]| {
        let (method, path) = name.split_once(' ').unwrap_or_default();
        let offers = schemes.iter().map(|it| offer(plan, it)).collect::<Result<_, _>>()?;
        Ok::<_, Unbuilt>(Arc::new(Route {
            name: name.to_owned(),
            method: method.parse().map_err(Unbuilt::new)?,
            path: PathPattern::Prefix(path.to_owned()),
            upstream: Arc::clone(&upstream),
            format,
            price,
            offers,
            settle,
            description: None,
            ceiling: Ceiling::default(),
            models: Models::Any,
            versions: Versions::TwoOnly,
            keep: plan.keeps.then_some(Keep { span: KEPT, bytes_max: KEPT_BYTES }),
        }))
    };
    let schemes: &[_] =
        if plan.tokens == SettleMode::Before { &["exact"] } else { &["exact", "upto"] };
    Ok(GatewayConfig {
        public_url: "https://sim.test".parse().map_err(Unbuilt::new)?,
        routes: vec![
            route("GET /things/", prices.flat, Format::Opaque, plan.flat, &["exact"])?,
            route("POST /v1/chat/", prices.tokens, Format::OpenAiChat, plan.tokens, schemes)?,
        ],
        limits: Limits::STANDARD,
    })
}

fn offer(plan: &Plan, word: &'static str) -> Result<OfferTemplate, Unbuilt> {
    let scheme = find_scheme(word, "eip155");
    Ok(OfferTemplate {
        scheme: scheme.ok_or_else(|| Unbuilt::new(format!("no scheme {word}")))?,
        network: Network::eip155(84532),
        token: OfferToken {
            address: USDC.to_owned(),
            decimals: DECIMALS,
            name: "USDC".to_owned(),
            version: "2".to_owned(),
        },
        pay_to: PAY_TO.to_owned(),
        max_timeout_seconds: LIFE_SECONDS,
        exposure_limit: plan.exposure_limit.map(Amount::from_units),
    })
}
