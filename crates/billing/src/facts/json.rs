//! A look at JSON that was checked before, without a copy of it: each value is the text that it is
//! written in, each name and string is borrowed from it where it has no escapes.
//!
//! A request that nobody has paid for is read with this, so nothing here takes memory that grows
//! with the number of values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::BadBody;

/// A name in an object.
#[derive(serde::Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Calls `each` with every item of an array. The text is that of an array.
pub(super) fn for_each_item<'a>(
    array: &'a str,
    mut each: impl FnMut(usize, &'a str) -> Result<(), BadBody>,
) -> Result<(), BadBody> {
    let mut index = 0_usize;
    read(array, |reader, refused| {
        reader.deserialize_seq(Each(|_: &str, item| {
            let outcome = each(index, item);
            index = index.saturating_add(1);
            keep(outcome, refused)
        }))
    })
}

/// Calls `each` with every member of an object. The text is that of an object.
pub(super) fn for_each_member<'a>(
    object: &'a str,
    mut each: impl FnMut(&str, &'a str) -> Result<(), BadBody>,
) -> Result<(), BadBody> {
    read(object, |reader, refused| {
        reader.deserialize_map(Each(|name: &str, value| keep(each(name, value), refused)))
    })
}

/// The value of one member of an object; `null` counts as absent. The text is that of an object.
pub(super) fn member<'a>(object: &'a str, name: &str) -> Result<Option<&'a str>, BadBody> {
    let mut found = None;
    for_each_member(object, |it, value| {
        if it == name && value != "null" {
            found = Some(value);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The string that is written there; nothing for any other value.
pub(super) fn string(text: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(text).ok().map(|Name(string)| string)
}

/// How many bytes the string has that is written there; nothing for any other value.
pub(super) fn string_bytes(text: &str) -> Option<usize> {
    serde_json::from_str::<Length>(text).ok().map(|Length(bytes)| bytes)
}

/// What a value is, without saying what it says.
pub(super) fn kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(_) | None => "a number",
    }
}

/// Why a reader was stopped.
struct Stopped;

fn keep(outcome: Result<(), BadBody>, refused: &mut Option<BadBody>) -> Result<(), Stopped> {
    outcome.map_err(|error| {
        *refused = Some(error);
        Stopped
    })
}

fn read<'a>(
    text: &'a str,
    with: impl FnOnce(
        &mut serde_json::Deserializer<serde_json::de::StrRead<'a>>,
        &mut Option<BadBody>,
    ) -> Result<(), serde_json::Error>,
) -> Result<(), BadBody> {
    let mut refused = None;
    let outcome = with(&mut serde_json::Deserializer::from_str(text), &mut refused);
    match (refused, outcome) {
        (Some(error), _) => Err(error),
        (None, outcome) => outcome.map_err(BadBody::NotJson),
    }
}

/// Reads one array or object, and hands out its values with their names; items have none.
struct Each<F>(F);

impl<'de, F: FnMut(&str, &'de str) -> Result<(), Stopped>> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            (self.0)("", item.get()).map_err(|Stopped| A::Error::custom("refused"))?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some((Name(name), value)) = members.next_entry::<Name<'de>, &'de RawValue>()? {
            (self.0)(&name, value.get()).map_err(|Stopped| A::Error::custom("refused"))?;
        }
        Ok(())
    }
}

/// The bytes of a string.
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(LengthVisitor)
    }
}

struct LengthVisitor;

impl Visitor<'_> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(Length(text.len()))
    }
}
