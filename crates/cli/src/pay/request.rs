//! The request, in curl's words.

use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;

use clap::Args;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request};
use url::Url;

/// How the request looks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Request")]
pub(super) struct RequestArgs {
    /// The method. [default: GET, or POST with -d]
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<Method>,
    /// A header; can be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The body: the text itself, @FILE, or @- for standard input; sent as it is. Repeated ones are
    /// joined with an ampersand.
    #[arg(short, long, value_name = "DATA")]
    data: Vec<String>,
    /// The body is JSON, and JSON is wanted back.
    #[arg(long)]
    json: bool,
}

/// Why there is no request to send.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("expected a URL with http or https, found {0:?}")]
    Scheme(String),
    #[error("cannot read the body from {}", path.display())]
    Body {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl BadRequest {
    /// Whether the command line is to blame.
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, Self::Scheme(_))
    }
}

impl RequestArgs {
    /// The request to `url`.
    pub(super) fn build(&self, url: &Url) -> Result<Request, BadRequest> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadRequest::Scheme(url.scheme().to_owned()));
        }
        let default = if self.data.is_empty() { Method::GET } else { Method::POST };
        let method = self.method.clone().unwrap_or(default);
        let mut request = Request::new(method, url.clone());
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        self.add_defaults(request.headers_mut());
        if !self.data.is_empty() {
            let parts: Vec<_> = self.data.iter().map(|it| read(it)).collect::<Result<_, _>>()?;
            *request.body_mut() = Some(parts.join(b"&".as_slice()).into());
        }
        Ok(request)
    }

    /// What curl says of a body, and `--json` of both sides, unless a header says otherwise.
    fn add_defaults(&self, headers: &mut HeaderMap) {
        let json = HeaderValue::from_static("application/json");
        if self.json {
            headers.entry(CONTENT_TYPE).or_insert(json.clone());
            headers.entry(ACCEPT).or_insert(json);
        } else if !self.data.is_empty() {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.entry(CONTENT_TYPE).or_insert(form);
        }
    }
}

fn read(data: &str) -> Result<Vec<u8>, BadRequest> {
    let Some(name) = data.strip_prefix('@') else { return Ok(data.as_bytes().to_vec()) };
    let failed = |source| BadRequest::Body { path: name.into(), source };
    if name != "-" {
        return fs::read(name).map_err(failed);
    }
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body).map_err(failed)?;
    Ok(body)
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `Name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is not a header's name"))?;
    // The value may be a secret: it is not repeated.
    let mut value: HeaderValue =
        value.trim().parse().map_err(|_| format!("the value of {name} is not one line of text"))?;
    value.set_sensitive(true);
    Ok((name, value))
}
