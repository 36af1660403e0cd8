//! `models`: which models a route sells.

use farebox_billing::{Format, Price};
use farebox_gateway::{ModelPattern, Models};

use super::super::problem::{Problem, Problems};
use super::super::section::{Section, Value};
use super::no_effect;

/// Reads `models`; without it every model is sold.
pub(super) fn read(
    section: &mut Section<'_>,
    (format, price): (Option<Format>, Option<Price>),
    problems: &mut Problems,
) -> Models {
    let Some(value) = section.get("models") else { return Models::Any };
    if format == Some(Format::Opaque) {
        let why = "only bodies of a metered format name a model";
        problems.push(no_effect(&value).label(why).help("add `format`, or remove this key"));
        return Models::Any;
    }
    if price == Some(Price::Free) {
        problems.push(no_effect(&value).label("what is free is forwarded as it is"));
        return Models::Any;
    }
    problems.keep(list(&value)).map_or(Models::Any, Models::Listed)
}

fn list(value: &Value<'_>) -> Result<Vec<ModelPattern>, Problem> {
    const EXPECTED: &str = "a list of names such as [\"gpt-4o-mini\", \"llama-*\"]";
    let entries = value.list(EXPECTED)?;
    if entries.is_empty() {
        return Err(value.wrong(EXPECTED).help("leave the key out to sell every model"));
    }
    entries.iter().map(pattern).collect()
}

fn pattern(value: &Value<'_>) -> Result<ModelPattern, Problem> {
    const EXPECTED: &str = "a model's name, or how names begin: \"llama-*\"";
    let text = value.text(EXPECTED)?;
    let (name, pattern): (&str, fn(String) -> ModelPattern) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, ModelPattern::Prefix),
        None => (text, ModelPattern::Exact),
    };
    if name.trim().is_empty() || name.contains('*') {
        return Err(value.wrong(EXPECTED).help("a `*` stands at the end, and not alone"));
    }
    Ok(pattern(name.to_owned()))
}
