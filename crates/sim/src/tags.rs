//! What the world writes on its requests, to know them again at the upstream.

use farebox_protocol::PaymentId;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::event::Fit;

const ATTEMPT: HeaderName = HeaderName::from_static("x-sim-attempt");
const PAYMENT: HeaderName = HeaderName::from_static("x-sim-payment");
const NAME: HeaderName = HeaderName::from_static("x-sim-name");
const FIT: HeaderName = HeaderName::from_static("x-sim-fit");

/// Which request it is, and which payment came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) attempt: u64,
    pub(crate) payment: Option<PaymentId>,
    pub(crate) name: Option<u64>,
    pub(crate) fit: Fit,
}

impl Tags {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|it: &HeaderValue| it.to_str().ok());
        Self {
            attempt: text(&ATTEMPT).and_then(|it| it.parse().ok()).unwrap_or_default(),
            payment: text(&PAYMENT).and_then(|it| it.parse().ok()),
            name: text(&NAME).and_then(|it| it.parse().ok()),
            fit: if text(&FIT) == Some("other") { Fit::Other } else { Fit::Own },
        }
    }

    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(ATTEMPT, HeaderValue::from(self.attempt));
        if let Some(payment) = self.payment
            && let Ok(value) = HeaderValue::try_from(payment.to_string())
        {
            headers.insert(PAYMENT, value);
        }
        if let Some(name) = self.name {
            headers.insert(NAME, HeaderValue::from(name));
        }
        if self.fit == Fit::Other {
            headers.insert(FIT, HeaderValue::from_static("other"));
        }
    }
}
