//! The one place that reads the environment: secrets, by a name that the user gave.

use secrecy::SecretString;

/// Why a secret could not be read from the environment.
#[derive(Debug, thiserror::Error)]
pub enum BadVariable {
    /// It is not set.
    #[error("the environment variable {0} is not set")]
    Missing(String),
    /// It is not text.
    #[error("the environment variable {0} is not UTF-8 text")]
    NotText(String),
}

/// The secret in the environment variable `name`.
#[expect(clippy::disallowed_methods, reason = "the user named this variable as a secret's home")]
pub fn secret_from_env(name: &str) -> Result<SecretString, BadVariable> {
    std::env::var(name).map(SecretString::from).map_err(|error| match error {
        std::env::VarError::NotPresent => BadVariable::Missing(name.to_owned()),
        // The value is in this error: it is dropped here.
        std::env::VarError::NotUnicode(_) => BadVariable::NotText(name.to_owned()),
    })
}
