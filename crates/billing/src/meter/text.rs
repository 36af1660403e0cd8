//! Values of answers: upstreams differ in the types of what they leave out, so a field of an
//! unforeseen type counts as nothing instead of making the rest unreadable. Text is counted without
//! being kept.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A value of the foreseen type, or nothing.
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(text.get()).ok()))
    }
}

/// How many bytes of text a value holds: a string, or the strings in a list of parts or calls.
#[derive(Clone, Copy, Default)]
pub(super) struct Text(pub(super) u64);

/// Members of parts, calls and items that the model did not write.
const NOT_TEXT: &[&str] = &[
    "annotations",
    "call_id",
    "citation",
    "citations",
    "encrypted_content",
    "id",
    "index",
    "logprobs",
    "role",
    "signature",
    "status",
    "type",
];

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(u64::try_from(text.len()).unwrap_or(u64::MAX)))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text, A::Error> {
        let mut sum = 0_u64;
        while let Some(Text(bytes)) = items.next_element()? {
            sum = sum.saturating_add(bytes);
        }
        Ok(Text(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Text, A::Error> {
        let mut sum = 0_u64;
        while let Some(name) = members.next_key::<String>()? {
            let Text(bytes) = members.next_value()?;
            if !NOT_TEXT.contains(&name.as_str()) {
                sum = sum.saturating_add(bytes);
            }
        }
        Ok(Text(sum))
    }
}
