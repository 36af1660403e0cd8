//! Why a node did not do what it was asked, by what that means for the asker.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

/// A call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RpcError {
    /// The node understood, and says no.
    #[error("the node refused {method}: {error}")]
    Node { method: &'static str, error: NodeError },
    /// No connection: nothing was sent.
    #[error("{host} could not be reached")]
    Unreachable {
        host: Arc<str>,
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// The request may have been carried out; the answer did not come.
    #[error("{host} gave no answer in time, or broke off")]
    NoAnswer {
        host: Arc<str>,
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// An HTTP status that is no success, without a JSON-RPC error.
    #[error("{host} answered with HTTP status {status}")]
    Status { host: Arc<str>, status: u16 },
    /// The answer is not what the method returns.
    #[error("{host} answered {what}")]
    Garbage { host: Arc<str>, what: &'static str },
    /// There is nobody to ask.
    #[error("no RPC endpoint is configured")]
    NoEndpoint,
    /// Nobody was asked.
    #[error("its wallet has refused too many payments just now to be asked again")]
    Spared,
}

impl RpcError {
    /// Whether a connection broke off, which is no reason not to try again at once.
    pub(crate) fn is_broken_off(&self) -> bool {
        matches!(self, Self::NoAnswer { source, .. } if !source.is_timeout())
    }

    /// Whether the node may have carried out the request all the same.
    pub(crate) fn maybe_done(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Garbage { .. } => true,
            // 4xx: turned away before anything was done. 5xx: somebody on the way failed.
            Self::Status { status, .. } => 500 <= *status,
            Self::Node { .. } | Self::Unreachable { .. } | Self::NoEndpoint | Self::Spared => false,
        }
    }
}

/// The `error` of a JSON-RPC answer.
#[derive(Clone, Debug, Deserialize, thiserror::Error)]
#[error("{} (code {code})", self.shown())]
pub(crate) struct NodeError {
    #[serde(default)]
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) data: Option<Value>,
}

impl NodeError {
    /// The message, cut to a length that is fit for logs.
    pub(crate) fn shown(&self) -> String {
        self.message.chars().filter(|it| !it.is_control()).take(300).collect()
    }
}
