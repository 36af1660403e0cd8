//! Routes as they run: checked at the start, with everything worked out that no request changes.

use std::sync::Arc;

use farebox_billing::{BadPrice, Format, NoPrice, Price, RequestFacts, price_version, quote};
use farebox_protocol::{Amount, Asset, BadAsset};
use http::Method;
use url::Url;

use crate::config::{OfferTemplate, PathPattern, Route};
use crate::proxy::quote as offers;

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
    /// The 402 answer would not pass common proxies.
    #[error("route `{route}`: its offers make a 402 header of {bytes} bytes, more than 8 kB")]
    HeaderTooLong {
        /// Which route.
        route: String,
        /// How long.
        bytes: usize,
    },
}

/// A route as it runs.
#[derive(Debug)]
pub(crate) struct LiveRoute {
    pub(crate) config: Arc<Route>,
    pub(crate) offers: Vec<LiveOffer>,
    /// The price book's name.
    pub(crate) price_version: Arc<str>,
}

/// An offer as it runs.
#[derive(Debug)]
pub(crate) struct LiveOffer {
    pub(crate) template: OfferTemplate,
    pub(crate) asset: Asset,
    /// The amount, where no request changes it.
    pub(crate) flat: Option<Amount>,
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
            let checked = LiveRoute {
                offers: live_offers(&route)?,
                config: route,
                price_version: Arc::clone(&version),
            };
            check_header(&checked, public_url)?;
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
    let normal = crate::target::Target::parse(path).is_ok_and(|it| it.as_str() == path);
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

fn live_offers(route: &Arc<Route>) -> Result<Vec<LiveOffer>, RouteError> {
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
        Ok(LiveOffer { template: template.clone(), asset, flat })
    };
    route.offers.iter().map(live).collect()
}

/// The longest header that this route can make must pass.
fn check_header(route: &LiveRoute, public_url: &Url) -> Result<(), RouteError> {
    if route.is_free() {
        return Ok(());
    }
    let bytes = offers::longest_header(route, public_url);
    if OFFER_HEADER_BYTES_MAX < bytes {
        return Err(RouteError::HeaderTooLong { route: route.config.name.clone(), bytes });
    }
    Ok(())
}
