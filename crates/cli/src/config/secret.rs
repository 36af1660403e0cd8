//! Secrets: named by an environment variable or a file, never written into the configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use farebox_chains::EvmKey;
use secrecy::{ExposeSecret, SecretString};

use super::problem::{Problem, Problems};
use super::section::{Section, Value};

const EXPECTED: &str = "`{ env = \"NAME\" }` or `{ file = \"path\" }`";

/// Where secrets are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    /// Paths are relative to it: the directory of the configuration file.
    pub(crate) directory: PathBuf,
    /// Reads an environment variable.
    pub(crate) variable: fn(&str) -> Option<String>,
}

impl Secrets {
    /// The secret that a value names.
    pub(crate) fn read(&self, value: &Value<'_>, problems: &mut Problems) -> Option<SecretString> {
        let section = Self::section(value, problems)?;
        self.read_section(value, section, problems)
    }

    /// The table of a value that names a secret, which may say more about it.
    pub(crate) fn section<'f>(value: &Value<'f>, problems: &mut Problems) -> Option<Section<'f>> {
        let section = value.as_section(format!("`{}`", value.key()));
        if section.is_none() {
            problems.push(literal(value));
        }
        section
    }

    /// The secret of that table.
    pub(crate) fn read_section(
        &self,
        value: &Value<'_>,
        mut section: Section<'_>,
        problems: &mut Problems,
    ) -> Option<SecretString> {
        let variable = section.get("env");
        let file = section.get("file");
        let unknown = section.close(problems);
        let read = match (variable, file) {
            // The wrong key is told already, and stands for the one that is missing.
            (None, None) if 0 < unknown => return None,
            (Some(name), None) => self.read_variable(&name),
            (None, Some(path)) => self.read_file(&path, problems),
            (Some(_), Some(_)) | (None, None) => Err(value.wrong(format!("either {EXPECTED}"))),
        };
        problems.keep(read)
    }

    /// The key of an account that a value names.
    pub(crate) fn read_key(&self, value: &Value<'_>, problems: &mut Problems) -> Option<EvmKey> {
        let secret = self.read(value, problems)?;
        problems.keep(EvmKey::from_hex(secret.expose_secret()).map_err(|error| {
            Problem::error(value.span(), "this is not the key of an account")
                .label(error.to_string())
                .help("`farebox init` makes one")
        }))
    }

    fn read_variable(&self, name: &Value<'_>) -> Result<SecretString, Problem> {
        let text = name.text("the name of an environment variable")?;
        (self.variable)(text).map(SecretString::from).ok_or_else(|| {
            Problem::error(name.span(), format!("the environment variable `{text}` is not set"))
                .label("named here")
                .help(format!("set it where farebox is started: `{text}=… farebox …`"))
        })
    }

    fn read_file(
        &self,
        path: &Value<'_>,
        problems: &mut Problems,
    ) -> Result<SecretString, Problem> {
        let file = self.directory.join(path.text("the path of a file")?);
        let text = fs::read_to_string(&file).map_err(|error| {
            Problem::error(path.span(), format!("the file {} cannot be read", file.display()))
                .label(error.to_string())
                .help("paths are relative to the directory of this configuration")
        })?;
        if text.trim().is_empty() {
            return Err(path.wrong("a file that holds the secret; this one is empty"));
        }
        if readable_by_others(&file) {
            problems.push(
                Problem::warning(path.span(), format!("others can read {}", file.display()))
                    .help(format!("run `chmod 600 {}`", file.display())),
            );
        }
        Ok(SecretString::from(text.trim().to_owned()))
    }
}

fn readable_by_others(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|it| it.permissions().mode() & 0o077 != 0)
}

/// Somebody wrote the secret itself: say so, and do not repeat it in the report.
fn literal(value: &Value<'_>) -> Problem {
    match value.as_text() {
        Some(_) => Problem::error(value.span(), "a secret must not stand in the configuration")
            .label(format!("expected {EXPECTED}"))
            .help("put it into a file that only you can read, or into the environment")
            .masked(),
        None => value.wrong_type(EXPECTED),
    }
}
