//! The one place that reads environment variables.

use std::env::VarError;

/// What an environment variable says; `None` if it is not set, or empty, or not text.
pub(crate) fn var(name: &str) -> Option<String> {
    read(name).ok().filter(|it| !it.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "everyone else asks this function")]
fn read(name: &str) -> Result<String, VarError> {
    std::env::var(name)
}
