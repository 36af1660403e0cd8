//! What a route demands: its offers in both versions of the protocol, written at the start.

use farebox_protocol::header;
use farebox_protocol::wire::{Object, PaymentRequired, ResourceInfo, X402_VERSION};
use url::Url;

use super::requirements;
use super::template::{Filling, Gap, Template, amount_mark};
use crate::config::Route;
use crate::proxy::v1;
use crate::routes::LiveOffer;
use crate::target::Target;

/// A longer `resource.url` loses its query, so that the header stays below what proxies pass.
pub(super) const URL_BYTES_MAX: usize = 1024;

/// The offers of a route, ready but for what a request decides.
#[derive(Debug)]
pub(crate) struct Demand {
    /// The start of every `resource.url`.
    base_url: String,
    /// The v2 document.
    required: Template,
    /// `accepts` of the v1 document.
    accepts: Template,
}

impl Demand {
    /// For a route with these offers.
    pub(crate) fn new(
        route: &Route,
        offers: &[LiveOffer],
        extensions: Option<Object>,
        public_url: &Url,
    ) -> serde_json::Result<Self> {
        let resource = ResourceInfo {
            url: Gap::Url.mark(),
            description: route.description.clone(),
            mime_type: None,
            rest: Object::new(),
        };
        let numbered = || offers.iter().enumerate();
        let in_v1 = numbered().filter(|(_, it)| it.v1_network.is_some());
        let accepts: Vec<_> = in_v1
            .filter_map(|(index, it)| v1::requirements(it, amount_mark(index), &resource))
            .collect();
        let required = PaymentRequired {
            x402_version: X402_VERSION,
            error: Some(Gap::Error.mark()),
            resource,
            accepts: numbered()
                .map(|(index, it)| requirements(it, amount_mark(index), &Gap::Quote(index).mark()))
                .collect(),
            extensions,
            rest: Object::new(),
        };
        Ok(Self {
            base_url: public_url.as_str().trim_end_matches('/').to_owned(),
            required: Template::new(&required, offers.len())?,
            accepts: Template::new(&accepts, offers.len())?,
        })
    }

    /// `PAYMENT-REQUIRED`: the v2 document in base64.
    pub(super) fn header(&self, filling: &Filling<'_>) -> String {
        header::encode_text(&self.required.fill(filling))
    }

    /// `accepts` of the v1 object, a JSON array: empty where v1 is not spoken or no offer has a v1
    /// form, for the stock client fails where it is missing.
    pub(super) fn accepts(&self, filling: &Filling<'_>) -> String {
        self.accepts.fill(filling)
    }

    /// `resource.url` in two halves.
    pub(super) fn url<'a>(&'a self, target: &'a Target) -> [&'a str; 2] {
        let shown = [target.as_str(), target.path()];
        let shown = shown.into_iter().find(|it| it.len() <= URL_BYTES_MAX);
        [&self.base_url, shown.unwrap_or("/")]
    }
}
