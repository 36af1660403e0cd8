//! The servers that Farebox is compared with, each a process of its own.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use axum::Json;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use x402_axum::X402Middleware;
use x402_chain_eip155::chain::ChecksummedAddress;
use x402_chain_eip155::{KnownNetworkEip155, V2Eip155Exact};
use x402_types::networks::USDC;

/// Binds a free port and says which on the first line.
async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    Ok(listener)
}

/// An upstream that answers a kilobyte at once.
pub async fn upstream() -> Result<()> {
    let listener = listen().await?;
    let body = Bytes::from(vec![b'x'; 1024]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let body = body.clone();
                async move {
                    request.into_body().collect().await?;
                    Ok::<_, hyper::Error>(Response::new(Full::new(body)))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

/// The least that a proxy can do on the same libraries: pooled client, streamed bodies.
pub async fn hyper_proxy(upstream: &str) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<HttpConnector, Incoming> =
        Client::builder(TokioExecutor::new()).build(connector);
    let listener = listen().await?;
    let upstream: Arc<str> = upstream.into();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, upstream) = (client.clone(), Arc::clone(&upstream));
        tokio::spawn(async move {
            let answer =
                service_fn(move |request| forward(client.clone(), Arc::clone(&upstream), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    upstream: Arc<str>,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    *request.uri_mut() = format!("http://{upstream}{path}").parse()?;
    Ok(client.request(request).await?)
}

/// A handler behind x402-axum with one flat price.
pub async fn x402_axum(facilitator: &str) -> Result<()> {
    let x402 = X402Middleware::try_new(facilitator)
        .map_err(|error| anyhow::anyhow!("x402-axum: {error}"))?;
    let pay_to: ChecksummedAddress = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
        .parse()
        .map_err(|error| anyhow::anyhow!("payTo: {error:?}"))?;
    let price = V2Eip155Exact::price_tag(pay_to, USDC::base_sepolia().amount(10_000_u64));
    let app = axum::Router::new()
        .route("/premium/report", get(|| async { "report" }).layer(x402.with_price_tag(price)));
    Ok(axum::serve(listen().await?, app).await?)
}

/// A facilitator that says yes at once: what is measured is the server before it.
pub async fn facilitator() -> Result<()> {
    let supported = serde_json::json!({
        "kinds": [{ "x402Version": 2, "scheme": "exact", "network": "eip155:84532" }],
        "extensions": [],
        "signers": {}
    });
    let app = axum::Router::new()
        .route("/supported", get(move || async move { Json(supported) }))
        .fallback(|| async { Ok::<_, Infallible>(StatusCode::NOT_FOUND) });
    Ok(axum::serve(listen().await?, app).await?)
}
