//! What the agent does: buys, is kept from overspending, meets a failing upstream, is impersonated.

use std::time::Duration;

use farebox_agent::{
    Choice, Limits, Outcome, PaidResponse, PayError, Payment, Policy, Preview, Usd, preview,
};
use farebox_billing::Payment as State;
use farebox_chains::Charging;
use farebox_protocol::{PaymentId, header};
use reqwest::{Method, Request};
use serde::Serialize;
use serde_json::{Value, json};

use super::model::{BROKEN_MODEL, MODEL};
use super::narrator::Narrator;
use super::stage::{BUDGET, Stage};
use crate::failure::Failure;

/// Looking at prices costs nothing, so any will do.
const WINDOW_SHOPPING: Usd = Usd::from_micros(1_000_000_000);

/// How a step is meant to end, and how one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    /// Served without a payment.
    Free,
    /// Paid and served.
    Bought,
    /// The agent signed nothing: it would have spent too much.
    RefusedByBudget,
    /// The upstream failed and nothing was charged.
    NotCharged,
    /// The gateway refused a payment that was used before.
    RefusedAsReplay,
    /// Something else.
    Unexpected,
}

impl End {
    /// For tables.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Bought => "bought",
            Self::RefusedByBudget => "refused by the agent's budget",
            Self::NotCharged => "not charged",
            Self::RefusedAsReplay => "refused: replay",
            Self::Unexpected => "UNEXPECTED",
        }
    }
}

/// One thing that was done.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// In words.
    pub(super) title: &'static str,
    /// Method and path.
    pub(super) request: String,
    /// How it was meant to end.
    pub(super) expected: End,
    /// How it ended.
    pub(super) end: End,
    /// The gateway's last answer.
    pub(super) status: Option<u16>,
    /// What was answered or refused, shortened.
    pub(super) detail: String,
    /// The payment that was signed for it.
    pub(super) payment: Option<PaymentId>,
    /// How long it took.
    pub(super) milliseconds: u64,
}

/// What is asked for.
struct Ask {
    title: &'static str,
    expected: End,
    method: Method,
    path: &'static str,
    body: Option<Value>,
}

impl Ask {
    fn get(title: &'static str, expected: End, path: &'static str) -> Self {
        Self { title, expected, method: Method::GET, path, body: None }
    }

    fn chat(title: &'static str, expected: End, body: Value) -> Self {
        let (method, path) = (Method::POST, "/v1/chat/completions");
        Self { title, expected, method, path, body: Some(body) }
    }

    fn request(&self, stage: &Stage) -> Result<Request, Failure> {
        let url = format!("{}{}", stage.gateway_url, self.path).parse();
        let url = url.map_err(|error| Failure::new("the gateway has no address").because(error))?;
        let mut request = Request::new(self.method.clone(), url);
        if let Some(body) = &self.body {
            let json = reqwest::header::HeaderValue::from_static("application/json");
            request.headers_mut().insert(reqwest::header::CONTENT_TYPE, json);
            *request.body_mut() = Some(body.to_string().into());
        }
        Ok(request)
    }
}

/// Plays it all.
pub(super) async fn run(stage: &Stage, narrator: &Narrator<'_>) -> Result<Vec<Step>, Failure> {
    let asks = [
        Ask::get("The agent asks for the models, which is free", End::Free, "/v1/models"),
        Ask::chat(
            "It buys a completion by what it uses; the answer waits for its settlement",
            End::Bought,
            chat(MODEL, "What does a meter know?", 120),
        ),
        Ask::chat(
            "It buys a stream by what it uses, which is settled when it ends",
            End::Bought,
            {
                let mut body = chat(MODEL, "Tell me about the night bus.", 160);
                if let Some(body) = body.as_object_mut() {
                    body.insert("stream".to_owned(), Value::Bool(true));
                }
                body
            },
        ),
        Ask::get("It buys a report at a flat price, settled first", End::Bought, "/reports/tides"),
        Ask::chat(
            "The upstream fails: nothing is charged",
            End::NotCharged,
            chat(BROKEN_MODEL, "Are you there?", 40),
        ),
        Ask::get(
            "It buys a note, answered at once and settled in the background",
            End::Bought,
            "/notes/harbour",
        ),
        Ask::chat(
            "It wants more than its budget has: it signs nothing",
            End::RefusedByBudget,
            chat(MODEL, "Write down everything.", 1_500),
        ),
    ];
    let mut steps = Vec::new();
    for ask in &asks {
        narrator.begin(steps.len().saturating_add(1), ask.title);
        if ask.body.is_some() {
            // What is on its way takes up what Permit2 may spend.
            stage.settled_payments().await?;
        }
        let step = ask_once(stage, ask, narrator).await?;
        narrator.tell(&told(&step));
        steps.push(step);
    }
    narrator.begin(steps.len().saturating_add(1), REPLAY);
    let bought = steps.iter().zip(&asks).find(|(step, _)| step.end == End::Bought);
    let (step, ask) =
        bought.ok_or_else(|| Failure::new("nothing was bought that could be replayed"))?;
    let replayed = replay(stage, ask, step.payment, narrator).await?;
    narrator.tell(&told(&replayed));
    steps.push(replayed);
    Ok(steps)
}

const REPLAY: &str = "A thief sends the first payment a second time";

fn chat(model: &str, prompt: &str, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": prompt }],
        "max_tokens": max_tokens,
    })
}

/// One request of the agent, paid if its policy allows.
async fn ask_once(stage: &Stage, ask: &Ask, narrator: &Narrator<'_>) -> Result<Step, Failure> {
    let began = narrator.elapsed();
    if let Some(quoted) = quoted(stage, ask).await? {
        let left = stage.agent.reconcile().await.left;
        narrator.tell(&format!("quoted {quoted}; {left} of {BUDGET} left"));
    }
    let answer = stage.agent.execute(ask.request(stage)?).await;
    let mut step = Step {
        title: ask.title,
        request: format!("{} {}", ask.method, ask.path),
        expected: ask.expected,
        end: End::Unexpected,
        status: None,
        detail: String::new(),
        payment: None,
        milliseconds: 0,
    };
    match answer {
        Ok(PaidResponse { response, payment }) => {
            step.status = Some(response.status().as_u16());
            step.end = end_of(response.status().is_success(), payment.as_ref());
            step.payment = payment.as_ref().map(|it| it.terms.id);
            step.detail = read(response).await?;
        }
        Err(error) => {
            step.end = match (&error, error.payment()) {
                (PayError::Refused(_), _) => End::RefusedByBudget,
                (_, Some(payment)) => end_of(false, Some(payment)),
                (_, None) => End::Unexpected,
            };
            step.payment = error.payment().map(|it| it.terms.id);
            step.detail = error.to_string();
        }
    }
    step.milliseconds = millis(narrator.elapsed().saturating_sub(began));
    Ok(step)
}

/// What it costs, asked without a key and whatever the agent may spend.
async fn quoted(stage: &Stage, ask: &Ask) -> Result<Option<String>, Failure> {
    let limits = Limits { per_payment: WINDOW_SHOPPING, total: WINDOW_SHOPPING };
    let policy = Policy { nodes: vec![stage.node.clone()], ..Policy::new(limits) };
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30));
    let payer = Some(stage.people.payer);
    let preview = preview(http, policy, ask.request(stage)?, payer).await;
    match preview.map_err(|error| Failure::new("no price could be had").because(error))? {
        Preview::WouldPay(choice) => {
            let Choice { offer, .. } = *choice;
            let most = match offer.scheme.charging() {
                Charging::Whole => "",
                Charging::UpTo => "at most ",
            };
            Ok(Some(format!("{most}{} by `{}`", offer.worth, offer.scheme.word())))
        }
        Preview::Free(_) => Ok(None),
    }
}

fn end_of(served: bool, payment: Option<&Payment>) -> End {
    match (served, payment.map(|it| &it.outcome)) {
        (true, None) => End::Free,
        (true, Some(Outcome::Paid { .. } | Outcome::Accepted)) => End::Bought,
        (false, Some(Outcome::NotCharged { .. })) => End::NotCharged,
        _ => End::Unexpected,
    }
}

/// Reads an answer to its end, as slowly as it comes.
async fn read(mut response: reqwest::Response) -> Result<String, Failure> {
    let broken = |error| Failure::new("an answer broke off").because(error);
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(essence(&String::from_utf8_lossy(&bytes)))
}

/// What a person wants to read of an answer.
fn essence(body: &str) -> String {
    let said = |json: &Value, pointer: &str| {
        json.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned)
    };
    let streamed: String = body
        .lines()
        .filter_map(|it| serde_json::from_str(it.strip_prefix("data: ")?).ok())
        .filter_map(|it: Value| said(&it, "/choices/0/delta/content"))
        .collect();
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let pointers = ["/choices/0/message/content", "/text", "/detail", "/title", "/data/0/id"];
    let text = pointers.into_iter().find_map(|it| said(&json, it));
    let text = if streamed.is_empty() { text.unwrap_or_else(|| body.to_owned()) } else { streamed };
    match text.char_indices().nth(72) {
        Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// Sends the payment of an earlier purchase again, byte for byte, as somebody who saw it could.
async fn replay(
    stage: &Stage,
    ask: &Ask,
    id: Option<PaymentId>,
    narrator: &Narrator<'_>,
) -> Result<Step, Failure> {
    let began = narrator.elapsed();
    let payments = stage.payments().await?;
    let payment = payments.iter().find(|it| Some(it.terms.id) == id);
    let payload = payment.map(|it| it.terms.payload.as_str()).unwrap_or_default();
    let payload: Value = serde_json::from_str(payload)
        .map_err(|error| Failure::new("the ledger has no such payment").because(error))?;
    let text = header::encode(&payload)
        .map_err(|error| Failure::new("the payment fits into no header").because(error))?;
    let value = text.parse().map_err(|error: reqwest::header::InvalidHeaderValue| {
        Failure::new("the payment fits into no header").because(error)
    })?;
    let mut request = ask.request(stage)?;
    request.headers_mut().insert(header::PAYMENT_SIGNATURE, value);
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build();
    let http =
        http.map_err(|error| Failure::new("the HTTP client could not be made").because(error))?;
    let response = http.execute(request).await;
    let response = response
        .map_err(|error| Failure::new("the gateway did not answer a replay").because(error))?;
    let status = response.status();
    let settled_before = payment.is_some_and(|it| matches!(it.state, State::Settled { .. }));
    let refused = status == reqwest::StatusCode::CONFLICT && settled_before;
    Ok(Step {
        title: REPLAY,
        request: format!("{} {}", ask.method, ask.path),
        expected: End::RefusedAsReplay,
        end: if refused { End::RefusedAsReplay } else { End::Unexpected },
        status: Some(status.as_u16()),
        detail: read(response).await?,
        payment: None,
        milliseconds: millis(narrator.elapsed().saturating_sub(began)),
    })
}

fn told(step: &Step) -> String {
    let seconds = format!("{}.{:02} s", step.milliseconds / 1000, step.milliseconds % 1000 / 10);
    let status = step.status.map(|it| format!(" ({it})")).unwrap_or_default();
    let what = match step.end {
        End::Free => "served for nothing",
        End::Bought => "paid and served",
        End::RefusedByBudget => "refused by its own budget",
        End::NotCharged => "not served, not charged",
        End::RefusedAsReplay => "refused by the gateway",
        End::Unexpected => "UNEXPECTED",
    };
    format!("{what}{status} after {seconds}: {}", step.detail.replace('\n', " "))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_essence_of_an_answer() {
        assert_eq!(essence(r#"{"choices":[{"message":{"content":"hello"}}]}"#), "hello");
        let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
                      data: {\"choices\":[{\"delta\":{\"content\":\" b\"}}]}\n\n: receipt\n\ndata: [DONE]\n\n";
        assert_eq!(essence(stream), "a b");
        assert_eq!(essence(r#"{"title":"used","detail":"It was used."}"#), "It was used.");
        assert_eq!(essence("plain"), "plain");
        assert_eq!(essence(&"é".repeat(100)).chars().count(), 74);
    }
}
