//! What would be paid, without a key and without signing anything.

use reqwest::{Request, Response};

use super::{Purse, no_redirects};
use crate::challenge::Challenge;
use crate::error::PayError;
use crate::offer::Offer;
use crate::policy::Policy;
use crate::transport::{Direct, Transport as _};

/// What [`preview`] found out.
#[derive(Debug)]
pub enum Preview {
    /// No payment is asked for: here is the answer.
    Free(Response),
    /// This is what would be signed.
    WouldPay(Box<Offer>),
}

/// Sends the request unpaid and says what would be paid for it under `policy`, its budget untouched.
pub async fn preview(
    http: reqwest::ClientBuilder,
    policy: Policy,
    request: Request,
) -> Result<Preview, PayError> {
    let purse = Purse::new(policy);
    let http = no_redirects(http).map_err(|it| PayError::Unreachable(it.into()))?;
    let url = request.url().clone();
    let answer = Direct(&http).send(request).await;
    let answer = answer.map_err(|it| PayError::Unreachable(it.source))?;
    let (answer, challenge) = Challenge::of(answer).await;
    let Some(challenge) = challenge? else { return Ok(Preview::Free(answer)) };
    purse.check_way(&url, &answer)?;
    let (offer, _) = purse.choose(&challenge)?;
    Ok(Preview::WouldPay(Box::new(offer)))
}
