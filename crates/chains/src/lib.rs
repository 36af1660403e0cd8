//! Is this payment good, and make it final: schemes, networks and facilitators.
//!
//! A [`Facilitator`] verifies and settles; [`Scheme`] is what the gateway needs to know of a payload
//! before it asks one. `alloy` types appear in no public signature of this crate.

mod facilitator;
mod scheme;

pub use crate::facilitator::{
    Facilitator, FacilitatorError, Lookup, SettleError, Settlement, Verification,
};
pub use crate::scheme::{BadPayload, Identified, Scheme};
