//! What would be paid, without a key and without signing anything.

use reqwest::{Request, Response};

use farebox_chains::EvmAddress;

use super::{Choice, Purse, no_redirects};
use crate::challenge::Challenge;
use crate::error::PayError;
use crate::policy::Policy;
use crate::transport::{Direct, Transport as _};

/// What [`preview`] found out.
#[derive(Debug)]
pub enum Preview {
    /// No payment is asked for: here is the answer.
    Free(Response),
    /// This is what would be signed.
    WouldPay(Box<Choice>),
}

/// Sends the request unpaid and says what would be paid for it under `policy`, its budget untouched.
/// What Permit2 may spend depends on the `payer`: without one, offers over it may be passed over that
/// would be paid.
pub async fn preview(
    http: reqwest::ClientBuilder,
    policy: Policy,
    request: Request,
    payer: Option<EvmAddress>,
) -> Result<Preview, PayError> {
    let purse = Purse::new(policy);
    let http = no_redirects(http).map_err(|it| PayError::Unreachable(it.into()))?;
    let url = request.url().clone();
    let answer = Direct(&http).send(request).await;
    let answer = answer.map_err(|it| PayError::Unreachable(it.source))?;
    let (answer, challenge) = Challenge::of(answer).await;
    let Some(challenge) = challenge? else { return Ok(Preview::Free(answer)) };
    purse.check_way(&url, &answer)?;
    let chosen = Box::pin(purse.choose(&challenge, payer, &mut Direct(&http))).await?;
    Ok(Preview::WouldPay(Box::new(chosen.choice)))
}
