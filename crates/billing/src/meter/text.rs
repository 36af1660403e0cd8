//! Values of answers: upstreams differ in the types of what they leave out, so a field of an
//! unforeseen type counts as nothing instead of making the rest unreadable. Text is counted without
//! being kept; what should be text and cannot be read as such (half of a surrogate pair, nested too
//! deep) counts as long as it is written, for it was delivered all the same.

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

/// A value of the foreseen type, or how many bytes of text are in the other one.
pub(super) enum Measured<T> {
    /// Of this type.
    Foreseen(T),
    /// Of another, with so much text.
    Other(u64),
}

impl<T> Measured<T> {
    /// The value.
    pub(super) const fn foreseen(&self) -> Option<&T> {
        match self {
            Self::Foreseen(value) => Some(value),
            Self::Other(_) => None,
        }
    }

    /// Bytes of text in it, which `of` knows of the foreseen type.
    pub(super) fn text_bytes(&self, of: impl FnOnce(&T) -> u64) -> u64 {
        match self {
            Self::Foreseen(value) => of(value),
            Self::Other(bytes) => *bytes,
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Measured<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        Ok(serde_json::from_str(text).map_or_else(|_| Self::Other(text_of(text)), Self::Foreseen))
    }
}

/// Bytes of text in a value; all that is written where it cannot be read.
fn text_of(value: &str) -> u64 {
    let read = serde_json::from_str::<Readable>(value);
    read.map_or_else(|_| written(value), |Readable(bytes)| bytes)
}

/// How long a value is written.
fn written(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
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
        let text = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self(text_of(text)))
    }
}

/// The same for a value that can be read to its depths.
struct Readable(u64);

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadableVisitor)
    }
}

struct ReadableVisitor;

impl<'de> Visitor<'de> for ReadableVisitor {
    type Value = Readable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Readable, E> {
        Ok(Readable(written(text)))
    }

    fn visit_unit<E>(self) -> Result<Readable, E> {
        Ok(Readable(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Readable, E> {
        Ok(Readable(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Readable, E> {
        Ok(Readable(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Readable, E> {
        Ok(Readable(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Readable, E> {
        Ok(Readable(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Readable, A::Error> {
        let mut sum = 0_u64;
        while let Some(Readable(bytes)) = items.next_element()? {
            sum = sum.saturating_add(bytes);
        }
        Ok(Readable(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Readable, A::Error> {
        let mut sum = 0_u64;
        while let Some(name) = members.next_key::<String>()? {
            let Readable(bytes) = members.next_value()?;
            if !NOT_TEXT.contains(&name.as_str()) {
                sum = sum.saturating_add(bytes);
            }
        }
        Ok(Readable(sum))
    }
}
