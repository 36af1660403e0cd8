//! Why a command failed, told to a person: what, why, and what to do about it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// What the shell gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done,
    /// It was not, and a message on standard error says why.
    Failed,
    /// A ledger was checked and is not sound.
    Unsound,
    /// A ledger was asked for a payment that it does not have.
    NoSuchPayment,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            // 2 is a wrong command line.
            Exit::Unsound => Self::from(3),
            Exit::NoSuchPayment => Self::from(4),
        }
    }
}

/// The end of a command that did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    help: Vec<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// What could not be done.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: Vec::new(), source: None }
    }

    /// Why.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do.
    #[must_use]
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut cause: Option<&(dyn Error + 'static)> = match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        };
        let mut told = self.what.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their source in their own text; nobody wants to read it twice.
            if !told.contains(&text) {
                write!(f, "\n  because: {text}")?;
            }
            told = text;
            cause = error.source();
        }
        for help in &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn the_chain_is_told_once() {
        let cause = Outer("x".parse::<u8>().unwrap_err());
        let failure = Failure::new("cannot count").because(cause).help("write a number");
        assert_eq!(
            failure.to_string(),
            "cannot count\n  because: outer: invalid digit found in string\n  help: write a number"
        );
    }
}
