//! Attack A17: nothing that was paid for, and no demand to pay, may be kept by a cache.

use farebox_testkit::upstream::{Part, Script};
use http::StatusCode;

use crate::app::{Answer, Setup, TestApp};

#[track_caller]
fn check(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    let cache: Vec<&str> = answer.header("cache-control").split(", ").collect();
    assert!(cache.contains(&"no-store") && cache.contains(&"private"), "{answer:?}");
    let vary: Vec<String> = answer
        .headers
        .get_all("vary")
        .iter()
        .flat_map(|it| it.to_str().unwrap().split(", "))
        .map(str::to_lowercase)
        .collect();
    assert!(vary.contains(&"payment-signature".to_owned()), "{answer:?}");
    assert!(vary.contains(&"authorization".to_owned()), "{answer:?}");
}

#[tokio::test]
async fn a17_no_answer_about_a_payment_may_be_kept() {
    let down = |target: &str| target == "/premium/down";
    let app = TestApp::start(Setup::default(), move |asked| {
        if down(&asked.target) {
            Script::new(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", vec![Part::text("no")])
        } else {
            Script::json("{}")
                .with_header("cache-control", "public, max-age=3600")
                .with_header("vary", "accept")
        }
    })
    .await;
    check(&app.ask("GET", "/premium/a", "").await, 402);
    let payment = app.quote("GET", "/premium/a", "", 1).await;
    check(&app.pay("GET", "/premium/a", "", &payment).await, 200);
    check(&app.pay("GET", "/premium/a", "", &payment).await, 409);
    check(&app.pay("GET", "/premium/a", "", "%%%").await, 400);
    check(&app.buy("GET", "/premium/down", "", 2).await, 500);
    check(&app.ask("GET", "/nowhere", "").await, 404);
    check(&app.ask("GET", "/premium//a", "").await, 400);
    app.facilitator.on_verify(farebox_testkit::facilitator::OnVerify::Unreachable);
    check(&app.buy("GET", "/premium/a", "", 3).await, 503);
    // What is free is as public as its upstream says.
    let free = app.ask("GET", "/v1/models", "").await;
    assert_eq!(free.header("cache-control"), "public, max-age=3600");
}
