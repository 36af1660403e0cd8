//! The proxy: free requests pass, priced ones take the way of `pay.rs`.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod charge;
pub(crate) mod claim;
pub(crate) mod free;
pub(crate) mod hold;
pub(crate) mod key;
pub(crate) mod pay;
pub(crate) mod prepaid;
pub(crate) mod quote;
pub(crate) mod repeat;
pub(crate) mod reply;
pub(crate) mod retry;
pub(crate) mod stream;
pub(crate) mod tariff;
pub(crate) mod v1;
pub(crate) mod work;

use std::sync::Arc;

use bytes::Bytes;
use farebox_billing::{BadBody, Format, RequestFacts, unpriced_beta};
use farebox_protocol::Digest;
use http::{HeaderMap, Method};

use crate::app::App;
use crate::config::Keep;
use crate::problem::{Kind, Problem};
use crate::routes::LiveRoute;
use crate::target::Target;

/// So much of a model's name is shown to whoever asked for it.
const MODEL_SHOWN: usize = 100;

/// A request for something priced, read within its bounds.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) route: Arc<LiveRoute>,
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Of the body as it came.
    pub(crate) digest: Digest,
    /// What decides the price.
    pub(crate) facts: RequestFacts,
    /// What its client calls it in the header for that.
    pub(crate) key: Option<String>,
}

impl Asked {
    /// Reads what decides the price.
    pub(crate) fn read(
        route: Arc<LiveRoute>,
        method: Method,
        target: Target,
        headers: HeaderMap,
        (body, digest): (Bytes, Digest),
    ) -> Result<Self, Problem> {
        let config = &route.config;
        let facts = RequestFacts::read(config.format, &body, &config.ceiling).map_err(bad_body)?;
        if !config.models.has(facts.model.as_deref()) {
            return Err(no_such_model(facts.model.as_deref()));
        }
        if config.format == Format::AnthropicMessages {
            refuse_unpriced_betas(&headers)?;
        }
        let key = key::in_headers(&headers)?;
        Ok(Self { route, method, target, headers, body, digest, facts, key })
    }

    /// Whether its answer is kept; that to HEAD has no body of its own.
    pub(crate) fn keep(&self) -> Option<Keep> {
        self.route.config.keep.filter(|_| self.method != Method::HEAD)
    }

    /// The body for the upstream, held to what the quote assumed.
    pub(crate) async fn enforced_body(self: &Arc<Self>, app: &App) -> Result<Bytes, Problem> {
        let asked = Arc::clone(self);
        let enforced = app.bodies.work(self.body.len(), move || {
            let config = &asked.route.config;
            asked.facts.enforce(config.format, &asked.body, &config.ceiling).map_err(bad_body)
        });
        enforced.await?
    }
}

/// A beta can make every token dearer than the price that was quoted.
fn refuse_unpriced_betas(headers: &HeaderMap) -> Result<(), Problem> {
    for value in headers.get_all("anthropic-beta") {
        let text = value.to_str().map_err(|_| {
            Problem::new(Kind::MalformedRequest, "`anthropic-beta` is not a list of names.")
        })?;
        if let Some(name) = unpriced_beta(text) {
            let name: String = name.chars().take(MODEL_SHOWN).collect();
            let detail = format!("The beta `{name}` in `anthropic-beta` has no price here.");
            return Err(Problem::new(Kind::MalformedRequest, detail));
        }
    }
    Ok(())
}

/// In the words that OpenAI has for it.
fn no_such_model(model: Option<&str>) -> Problem {
    let detail = match model {
        Some(name) => {
            let name: String = name.chars().take(MODEL_SHOWN).collect();
            format!("The model `{name}` does not exist or you do not have access to it.")
        }
        None => "This route has listed models only: name one of them.".to_owned(),
    };
    Problem::new(Kind::ModelNotFound, detail)
}

fn bad_body(error: BadBody) -> Problem {
    Problem::new(Kind::MalformedRequest, format!("The request body has no price: {error}."))
        .with_member("pointer", error.pointer())
        .with_member("expected", error.expected())
        .with_member("found", error.found())
}
