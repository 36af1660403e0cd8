//! Walks a parsed TOML table key by key, remembering where everything stood.
//!
//! Every key that is asked for is a known one; closing a section reports the rest. So the list of
//! known keys cannot drift from what is read.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};

/// A table that is being read.
#[derive(Debug)]
pub(crate) struct Section<'f> {
    /// How it is written: `[server]`.
    name: String,
    span: Range<usize>,
    table: &'f DeTable<'f>,
    asked: Vec<&'static str>,
}

impl<'f> Section<'f> {
    /// The table called `name` in reports; `span` is shown when a key is missing.
    pub(crate) fn new(name: impl Into<String>, span: Range<usize>, table: &'f DeTable<'f>) -> Self {
        Self { name: name.into(), span, table, asked: Vec::new() }
    }

    /// How it is written.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it begins.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key, if it is there.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Value<'f>> {
        self.asked.push(key);
        let (key, value) = self.table.get_key_value(key)?;
        Some(Value::new(key.get_ref().to_string(), key.span(), value))
    }

    /// What a key that may be left out says.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        parse: impl FnOnce(&Value<'f>) -> Result<T, Problem>,
    ) -> Option<T> {
        let value = self.get(key)?;
        problems.keep(parse(&value))
    }

    /// What a key that must be there says.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        parse: impl FnOnce(&Value<'f>) -> Result<T, Problem>,
    ) -> Option<T> {
        let Some(value) = self.get(key) else {
            problems.push(self.missing(key));
            return None;
        };
        problems.keep(parse(&value))
    }

    /// The problem of a key that is not there.
    pub(crate) fn missing(&self, key: &str) -> Problem {
        Problem::error(self.span(), format!("`{key}` is missing in {}", self.name))
            .label(format!("`{key} = …` belongs here"))
    }

    /// The problem of a table that is not there.
    pub(crate) fn missing_table(&self, name: &str) -> Problem {
        Problem::error(self.span(), format!("`{name}` is missing"))
            .help(format!("add a table `{name}`; `farebox init` writes an example of each"))
    }

    /// Every key with its value, for a table whose keys are names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Value<'f>> + use<'f> {
        let table = self.table;
        table.iter().map(|(key, value)| Value::new(key.get_ref().to_string(), key.span(), value))
    }

    /// Reports every key that nobody asked for; returns how many there are.
    pub(crate) fn close(self, problems: &mut Problems) -> usize {
        let mut unknown = 0_usize;
        for key in self.table.keys().filter(|it| !self.asked.contains(&it.get_ref().as_ref())) {
            unknown = unknown.saturating_add(1);
            let written = key.get_ref();
            let unused = self.asked.iter().filter(|it| !self.table.contains_key(**it)).copied();
            problems.push(
                Problem::error(key.span(), format!("unknown key `{written}`"))
                    .label(format!("not a key of {}", self.name))
                    .suggest(written, unused),
            );
        }
        unknown
    }
}

/// A value with its key and the places of both.
#[derive(Clone, Debug)]
pub(crate) struct Value<'f> {
    key: String,
    key_span: Range<usize>,
    span: Range<usize>,
    content: &'f DeValue<'f>,
}

impl<'f> Value<'f> {
    fn new(key: String, key_span: Range<usize>, value: &'f Spanned<DeValue<'f>>) -> Self {
        Self { key, key_span, span: value.span(), content: value.get_ref() }
    }

    /// The key that it belongs to.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Where the key stands.
    pub(crate) fn key_span(&self) -> Range<usize> {
        self.key_span.clone()
    }

    /// Where it stands.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// A mistake in this value: what was expected there.
    pub(crate) fn wrong(&self, expected: impl Into<String>) -> Problem {
        Problem::error(self.span(), format!("bad value of `{}`", self.key))
            .label(format!("expected {}", expected.into()))
    }

    /// The problem of a value of another type.
    pub(crate) fn wrong_type(&self, expected: &str) -> Problem {
        let found = match self.content {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.wrong(format!("{expected}, found {found}"))
    }

    /// The string that it is, if it is one.
    pub(crate) fn as_text(&self) -> Option<&'f str> {
        self.content.as_str()
    }

    /// The string that it must be; `expected` says which.
    pub(crate) fn text(&self, expected: &str) -> Result<&'f str, Problem> {
        self.content.as_str().ok_or_else(|| self.wrong_type(expected))
    }

    /// The whole number of at least one that it must be.
    pub(crate) fn count(&self, expected: &str) -> Result<u64, Problem> {
        let DeValue::Integer(number) = self.content else {
            return Err(self.wrong_type(expected));
        };
        let digits = number.as_str().replace('_', "");
        match u64::from_str_radix(&digits, number.radix()) {
            Ok(number) if 0 < number => Ok(number),
            Ok(_) | Err(_) => Err(self.wrong(expected)),
        }
    }

    /// `true` or `false`, which it must be.
    pub(crate) fn flag(&self) -> Result<bool, Problem> {
        let DeValue::Boolean(flag) = self.content else {
            return Err(self.wrong_type("`true` or `false`"));
        };
        Ok(*flag)
    }

    /// The table that it is, if it is one, to be read as a section of that name.
    pub(crate) fn as_section(&self, name: impl Into<String>) -> Option<Section<'f>> {
        let table = self.content.as_table()?;
        Some(Section::new(name, self.span(), table))
    }

    /// The table that it must be.
    pub(crate) fn section(&self, name: &str, expected: &str) -> Result<Section<'f>, Problem> {
        self.as_section(name).ok_or_else(|| self.wrong_type(expected))
    }

    /// The list that it must be; each element goes by the list's key.
    pub(crate) fn list(&self, expected: &str) -> Result<Vec<Self>, Problem> {
        let array = self.content.as_array().ok_or_else(|| self.wrong_type(expected))?;
        Ok(array.iter().map(|it| Self::new(self.key.clone(), self.key_span.clone(), it)).collect())
    }
}
