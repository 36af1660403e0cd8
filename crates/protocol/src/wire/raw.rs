//! A document together with the very bytes it came as.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A parsed value and its original JSON text, which is what gets written again: forwarding and
/// hashing see exactly what the peer sent.
#[derive(Clone, Debug)]
pub struct Raw<T> {
    value: T,
    text: Box<RawValue>,
}

impl<T> Raw<T> {
    /// The parsed value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The JSON text as it came.
    pub fn text(&self) -> &str {
        self.text.get()
    }
}

impl<T: Serialize> Raw<T> {
    /// A value of our own, with the text that it serialises to.
    pub fn new(value: T) -> Result<Self, serde_json::Error> {
        let text = serde_json::value::to_raw_value(&value)?;
        Ok(Self { value, text })
    }
}

impl<T> Serialize for Raw<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Raw<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let value = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self { value, text })
    }
}
