//! Routes as they run: checked at the start, with everything worked out that no request changes.

use std::sync::Arc;
use std::time::Duration;

use farebox_billing::{BadPrice, Format, NoPrice, Price, RequestFacts, price_version, quote};
use farebox_chains::Charging;
use farebox_protocol::wire::{Object, ResourceInfo};
use farebox_protocol::{Amount, Asset, BadAsset, Network};
use farebox_store::SettleMode;
use http::Method;
use url::Url;

use crate::backing::Backing;
use crate::config::{OfferTemplate, PathPattern, Route, Versions};
use crate::proxy::accept::life_min;
use crate::proxy::key;
use crate::proxy::quote::demand::Demand;
use crate::proxy::quote::longest_header;
use crate::proxy::v1;
use crate::upstream::Origin;

/// When the money moves, in an offer's `extra`; without it, after the work (x402 SDKs from 2.22 on).
const PAYMENT_FLOW: &str = "paymentFlow";
/// Settled, then worked for: stock clients pay so where nothing else is offered.
const UPFRONT: &str = "upfront";
/// Paths of the gateway's own.
pub(crate) const HEALTH: &str = "/healthz";
/// Likewise.
pub(crate) const READY: &str = "/readyz";
/// Receipts are below it.
pub(crate) const RECEIPTS: &str = "/v1/receipts/";
/// A 402 header longer than this does not pass common proxies.
const OFFER_HEADER_BYTES_MAX: usize = 8 * 1024;

/// Why a route cannot work as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Two routes answer the same requests.
    #[error("route `{route}` is never reached: an earlier one answers the same requests")]
    Shadowed {
        /// The later one.
        route: String,
    },
    /// The path belongs to the gateway itself or to something mounted beside it.
    #[error("route `{route}` is within `{path}`, which is the gateway's own")]
    Reserved {
        /// Which route.
        route: String,
        /// Whose path.
        path: String,
    },
    /// The path is not in the normal form that requests are matched in.
    #[error("route `{route}`: no request has the path `{path}` in its normal form")]
    Path {
        /// Which route.
        route: String,
        /// Its path.
        path: String,
    },
    /// A priced route that cannot be paid for, or a free one that can.
    #[error("route `{route}`: a price needs at least one offer, and a free route has none")]
    Offers {
        /// Which route.
        route: String,
    },
    /// Its payments would end before there was time to work and to settle.
    #[error("route `{route}`: payments that are good for {seconds} s leave no time for the work")]
    Brief {
        /// Which route.
        route: String,
        /// `maxTimeoutSeconds` of its offer.
        seconds: u64,
    },
    /// The price cannot be charged.
    #[error("route `{route}`: {source}")]
    Price {
        /// Which route.
        route: String,
        /// Why.
        #[source]
        source: BadPrice,
    },
    /// The price goes by usage, which this format does not tell.
    #[error("route `{route}`: the price goes by tokens, which format `{format}` does not count")]
    Unmetered {
        /// Which route.
        route: String,
        /// Its format.
        format: Format,
    },
    /// The token's address is not one of its network.
    #[error("route `{route}`: {source}")]
    Asset {
        /// Which route.
        route: String,
        /// Why.
        #[source]
        source: BadAsset,
    },
    /// Nobody would settle its payments.
    #[error("route `{route}`: the facilitator does not settle `{offer}` on {network}")]
    Unsettled {
        /// Which route.
        route: String,
        /// The scheme, as a configuration writes it.
        offer: &'static str,
        /// Where it is offered.
        network: Network,
    },
    /// What was used is not known before the work.
    #[error(
        "route `{route}`: `{offer}` charges what was used, so it cannot settle before the work"
    )]
    TooEarly {
        /// Which route.
        route: String,
        /// The scheme, as a configuration writes it.
        offer: &'static str,
    },
    /// Its upstream's address or key is of no form that HTTP has.
    #[error("route `{route}`: its upstream cannot be asked")]
    Upstream {
        /// Which route.
        route: String,
        /// Why.
        #[source]
        source: http::Error,
    },
    /// Its offers cannot be written as JSON.
    #[error("route `{route}`: its offers cannot be written")]
    Unwritable {
        /// Which route.
        route: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The 402 answer would not pass common proxies.
    #[error("route `{route}`: its offers make a 402 header of {bytes} bytes, more than 8 kB")]
    HeaderTooLong {
        /// Which route.
        route: String,
        /// How long.
        bytes: usize,
    },
}

impl RouteError {
    /// The name of the route that cannot work.
    pub fn route(&self) -> &str {
        match self {
            Self::Shadowed { route }
            | Self::Reserved { route, .. }
            | Self::Path { route, .. }
            | Self::Offers { route }
            | Self::Brief { route, .. }
            | Self::Price { route, .. }
            | Self::Unmetered { route, .. }
            | Self::Asset { route, .. }
            | Self::Unsettled { route, .. }
            | Self::TooEarly { route, .. }
            | Self::Upstream { route, .. }
            | Self::Unwritable { route, .. }
            | Self::HeaderTooLong { route, .. } => route,
        }
    }
}

/// The paths that a gateway answers itself, which no route may take.
pub fn own_paths() -> Vec<PathPattern> {
    vec![
        PathPattern::Exact(HEALTH.to_owned()),
        PathPattern::Exact(READY.to_owned()),
        PathPattern::Prefix(RECEIPTS.to_owned()),
    ]
}

/// Whether a gateway would start with these routes: everything but its upstreams and networks.
pub fn check_routes(routes: &[Arc<Route>], public_url: &Url) -> Result<(), RouteError> {
    Routes::build(routes.to_vec(), public_url, &own_paths(), &Backing::any()).map(drop)
}

/// A route as it runs.
#[derive(Debug)]
pub(crate) struct LiveRoute {
    pub(crate) config: Arc<Route>,
    pub(crate) offers: Vec<LiveOffer>,
    /// The price book's name.
    pub(crate) price_version: Arc<str>,
    /// What whoever has not paid is asked for.
    pub(crate) demand: Demand,
    /// Where the work is done.
    pub(crate) origin: Origin,
}

/// An offer as it runs.
#[derive(Debug)]
pub(crate) struct LiveOffer {
    pub(crate) template: OfferTemplate,
    pub(crate) asset: Asset,
    /// What its scheme says in `extra`, besides the token's names and the quote.
    pub(crate) extra: Object,
    /// The amount, where no request changes it.
    pub(crate) flat: Option<Amount>,
    /// The v1 name of the network, where v1 clients can take it; no two offers of a route have the
    /// same.
    pub(crate) v1_network: Option<String>,
}

/// What a request's method and path lead to.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Route(&'a Arc<LiveRoute>),
    /// The path has these methods only.
    OtherMethods(String),
    Nothing,
}

/// All routes in the order of the file.
#[derive(Debug)]
pub(crate) struct Routes(Vec<Arc<LiveRoute>>);

impl LiveOffer {
    /// The most that a request with these facts can cost, in this offer's token.
    pub(crate) fn quote(&self, price: &Price, facts: &RequestFacts) -> Result<Amount, NoPrice> {
        self.flat.map_or_else(|| quote(price, facts, self.template.token.decimals), Ok)
    }
}

impl LiveRoute {
    /// Whether nobody pays for it.
    pub(crate) fn is_free(&self) -> bool {
        self.config.price == Price::Free
    }
}

impl Routes {
    /// Checks the routes and works out what no request changes.
    pub(crate) fn build(
        routes: Vec<Arc<Route>>,
        public_url: &Url,
        reserved: &[PathPattern],
        backing: &Backing,
    ) -> Result<Self, RouteError> {
        let table: Vec<(&str, Price)> =
            routes.iter().map(|it| (it.name.as_str(), it.price)).collect();
        let version: Arc<str> = price_version(&table).into();
        let mut live: Vec<Arc<LiveRoute>> = Vec::with_capacity(routes.len());
        for route in routes {
            check_path(&route, reserved)?;
            if live.iter().any(|earlier| covers(&earlier.config, &route)) {
                return Err(RouteError::Shadowed { route: route.name.clone() });
            }
            let offers = live_offers(&route, backing)?;
            let extensions = backing.extensions(route.offers.iter().map(|it| it.scheme));
            let mut extensions = extensions.unwrap_or_default();
            extensions.insert(key::PAYMENT_IDENTIFIER.to_owned(), key::declared());
            let demand = Demand::new(&route, &offers, Some(extensions), public_url)
                .map_err(|source| RouteError::Unwritable { route: route.name.clone(), source })?;
            let origin = Origin::of(&route.upstream)
                .map_err(|source| RouteError::Upstream { route: route.name.clone(), source })?;
            let price_version = Arc::clone(&version);
            let checked = LiveRoute { offers, config: route, price_version, demand, origin };
            check_header(&checked)?;
            live.push(Arc::new(checked));
        }
        Ok(Self(live))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether any route has this path.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        self.0.iter().any(|it| it.config.path.matches(path))
    }

    /// The first route for a normalised path.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let mut others = Vec::new();
        for route in self.0.iter().filter(|it| it.config.path.matches(path)) {
            if route.config.method == *method {
                return Found::Route(route);
            }
            others.push(route.config.method.as_str());
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others.join(", ")) }
    }
}

fn check_path(route: &Route, reserved: &[PathPattern]) -> Result<(), RouteError> {
    let path = route.path.as_str();
    let normal = crate::target::Target::parse(path).is_ok_and(|it| it.path() == path);
    let prefix_ends_well = match &route.path {
        PathPattern::Exact(_) => true,
        PathPattern::Prefix(prefix) => prefix.ends_with('/'),
    };
    if !normal || !prefix_ends_well {
        return Err(RouteError::Path { route: route.name.clone(), path: path.to_owned() });
    }
    match reserved.iter().find(|it| it.covers(&route.path)) {
        None => Ok(()),
        Some(own) => {
            Err(RouteError::Reserved { route: route.name.clone(), path: own.as_str().to_owned() })
        }
    }
}

fn covers(earlier: &Route, later: &Route) -> bool {
    earlier.method == later.method && earlier.path.covers(&later.path)
}

fn live_offers(route: &Arc<Route>, backing: &Backing) -> Result<Vec<LiveOffer>, RouteError> {
    let name = || route.name.clone();
    let free = route.price == Price::Free;
    if free != route.offers.is_empty() {
        return Err(RouteError::Offers { route: name() });
    }
    if route.price.needs_meter() && route.format == Format::Opaque {
        return Err(RouteError::Unmetered { route: name(), format: route.format });
    }
    let live = |template: &OfferTemplate| {
        let token = &template.token;
        let seconds = template.max_timeout_seconds;
        if Duration::from_secs(seconds) <= life_min(route.settle, seconds) {
            return Err(RouteError::Brief { route: name(), seconds });
        }
        let offer = template.scheme.word();
        if template.scheme.charging() == Charging::UpTo && route.settle == SettleMode::Before {
            return Err(RouteError::TooEarly { route: name(), offer });
        }
        let network = &template.network;
        let mut extra = backing.extra(template.scheme, network).ok_or_else(|| {
            RouteError::Unsettled { route: name(), offer, network: network.clone() }
        })?;
        if route.settle == SettleMode::Before {
            extra.insert(PAYMENT_FLOW.to_owned(), UPFRONT.into());
        }
        let price = |source| RouteError::Price { route: name(), source };
        route.price.check(token.decimals).map_err(price)?;
        let asset = Asset::new(template.network.clone(), &token.address)
            .map_err(|source| RouteError::Asset { route: name(), source })?;
        let flat = match &route.price {
            Price::PerRequest(_) => Some(
                quote(&route.price, &RequestFacts::default(), token.decimals)
                    .map_err(|_| price(BadPrice::OutOfRange))?,
            ),
            Price::Free | Price::Tokens { .. } => None,
        };
        Ok(LiveOffer { template: template.clone(), asset, extra, flat, v1_network: None })
    };
    let mut offers = route.offers.iter().map(live).collect::<Result<Vec<_>, _>>()?;
    if route.versions == Versions::TwoAndOne {
        name_for_v1(&mut offers);
    }
    Ok(offers)
}

/// A v1 payment names a network and no token: of several offers on one network, the first is the
/// one that v1 clients can take.
fn name_for_v1(offers: &mut [LiveOffer]) {
    let mut named: Vec<String> = Vec::new();
    for offer in offers {
        let resource = ResourceInfo {
            url: String::new(),
            description: None,
            mime_type: None,
            rest: Object::new(),
        };
        let name = v1::requirements(offer, Amount::ZERO, &resource).map(|it| it.network);
        offer.v1_network = name.filter(|it| !named.contains(it));
        named.extend(offer.v1_network.clone());
    }
}

/// The longest header that this route can make must pass.
fn check_header(route: &LiveRoute) -> Result<(), RouteError> {
    if route.is_free() {
        return Ok(());
    }
    let bytes = longest_header(route);
    if OFFER_HEADER_BYTES_MAX < bytes {
        return Err(RouteError::HeaderTooLong { route: route.config.name.clone(), bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use farebox_billing::Ceiling;
    use farebox_chains::find_scheme;

    use super::*;
    use crate::config::{Models, OfferToken, Upstream};

    fn offer(description: usize) -> OfferTemplate {
        OfferTemplate {
            scheme: find_scheme("exact", "eip155").unwrap(),
            network: Network::eip155(84532),
            token: OfferToken {
                address: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".to_owned(),
                decimals: 6,
                name: "U".repeat(description),
                version: "2".to_owned(),
            },
            pay_to: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".to_owned(),
            max_timeout_seconds: 300,
            exposure_limit: None,
        }
    }

    fn route(name: &str, price: &str, offers: Vec<OfferTemplate>) -> Route {
        let (method, path) = name.split_once(' ').unwrap();
        Route {
            name: name.to_owned(),
            method: method.parse().unwrap(),
            path: match path.strip_suffix('*') {
                Some(prefix) => PathPattern::Prefix(prefix.to_owned()),
                None => PathPattern::Exact(path.to_owned()),
            },
            upstream: Arc::new(Upstream {
                name: "u".to_owned(),
                url: Url::parse("http://127.0.0.1:1").unwrap(),
                api_key: None,
                head_timeout: Duration::from_secs(1),
                idle_timeout: Duration::from_secs(1),
            }),
            format: Format::Opaque,
            price: match price {
                "free" => Price::Free,
                price => Price::PerRequest(price.parse().unwrap()),
            },
            offers,
            settle: SettleMode::After,
            description: None,
            ceiling: Ceiling::default(),
            models: Models::Any,
            versions: Versions::default(),
            keep: None,
        }
    }

    fn build(routes: Vec<Route>) -> Result<Routes, RouteError> {
        let url = Url::parse("https://a.example/").unwrap();
        let routes = routes.into_iter().map(Arc::new).collect();
        Routes::build(routes, &url, &own_paths(), &Backing::any())
    }

    #[track_caller]
    fn check(routes: Vec<Route>, expected: Option<&str>) {
        let error = build(routes).err().map(|it| it.to_string());
        assert_eq!(
            error.as_deref().map(|it| it.contains(expected.unwrap_or("-"))),
            expected.map(|_| true),
            "{error:?}"
        );
    }

    #[test]
    fn a_route_that_cannot_work_stops_the_start() {
        let paid = |name| route(name, "0.01", vec![offer(4)]);
        let free = |name| route(name, "free", Vec::new());
        check(vec![paid("GET /a"), paid("POST /a"), free("GET /b/*"), free("GET /*")], None);
        check(vec![free("GET /*"), paid("GET /a")], Some("never reached"));
        check(vec![paid("GET /a"), paid("GET /a")], Some("never reached"));
        check(vec![free("GET /healthz")], Some("the gateway's own"));
        check(vec![free("GET /v1/receipts/mine/*")], Some("the gateway's own"));
        for path in ["GET /a/../b", "GET /%61", "GET a", "GET /a//b", "GET /a?x=1", "GET /a*"] {
            check(vec![free(path)], Some("normal form"));
        }
        check(vec![route("GET /a", "0.01", Vec::new())], Some("at least one offer"));
        check(vec![route("GET /a", "free", vec![offer(4)])], Some("at least one offer"));
        check(vec![route("GET /a", "0", vec![offer(4)])], Some("above zero"));
        let metered = Price::Tokens {
            input_per_1m: "1".parse().unwrap(),
            output_per_1m: "1".parse().unwrap(),
        };
        check(vec![Route { price: metered, ..paid("GET /a") }], Some("does not count"));
        let brief = OfferTemplate { max_timeout_seconds: 17, ..offer(4) };
        check(vec![route("GET /a", "0.01", vec![brief])], Some("no time for the work"));
        let enough = OfferTemplate { max_timeout_seconds: 18, ..offer(4) };
        check(vec![route("GET /a", "0.01", vec![enough])], None);
        let upto = OfferTemplate { scheme: find_scheme("upto", "eip155").unwrap(), ..offer(4) };
        check(vec![route("GET /a", "0.01", vec![upto.clone()])], None);
        let early = Route { settle: SettleMode::Before, ..route("GET /a", "0.01", vec![upto]) };
        check(vec![early], Some("cannot settle before"));
    }

    #[test]
    fn offers_that_no_proxy_would_pass_stop_the_start() {
        check(vec![route("GET /a", "0.01", vec![offer(4); 6])], None);
        check(vec![route("GET /a", "0.01", vec![offer(4); 16])], Some("more than 8 kB"));
        check(vec![route("GET /a", "0.01", vec![offer(7000)])], Some("more than 8 kB"));
    }

    #[test]
    fn v1_clients_see_one_offer_a_network_and_those_that_they_know() {
        let on = |chain_id, pay_to: &str| OfferTemplate {
            network: Network::eip155(chain_id),
            pay_to: pay_to.to_owned(),
            ..offer(4)
        };
        let offers = || vec![on(84532, "0x1"), on(10, "0x2"), on(84532, "0x3"), on(8453, "0x4")];
        let seen = |route: Route| {
            let routes = build(vec![route]).unwrap();
            let Found::Route(route) = routes.find(&Method::GET, "/a") else { panic!() };
            let names = route.offers.iter().map(|it| it.v1_network.clone());
            names.map(Option::unwrap_or_default).collect::<Vec<_>>()
        };
        let both = route("GET /a", "0.01", offers());
        assert_eq!(seen(both), ["base-sepolia", "", "", "base"]);
        let two = Route { versions: Versions::TwoOnly, ..route("GET /a", "0.01", offers()) };
        assert_eq!(seen(two), ["", "", "", ""]);
    }

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let routes = build(vec![
            route("GET /a/b", "free", Vec::new()),
            route("GET /a/*", "0.01", vec![offer(4)]),
        ])
        .unwrap();
        let name = |method: &str, path: &str| match routes.find(&method.parse().unwrap(), path) {
            Found::Route(route) => route.config.name.clone(),
            Found::OtherMethods(methods) => methods,
            Found::Nothing => String::new(),
        };
        assert_eq!(name("GET", "/a/b"), "GET /a/b");
        assert_eq!(name("GET", "/a/b/c"), "GET /a/*");
        assert_eq!(name("POST", "/a/c"), "GET");
        assert_eq!(name("GET", "/a"), "");
    }
}
