//! The members of a JSON object with the text of their values, so that some can be replaced while
//! the rest stays as it was written.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::Name;

/// An object's members in their order.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Members<'a> {
    /// Reads an object; every other value is an error.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Every name with the text of its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_ref(), text.as_ref()))
    }

    /// The text of a value; `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(it, text)| *it == name && *text != "null").map(|(_, text)| text)
    }

    /// Replaces a value where it stands, or adds it at the end.
    pub(super) fn set(&mut self, name: &str, text: String) {
        let text = Cow::Owned(text);
        match self.0.iter_mut().find(|(it, _)| it == name) {
            Some(member) => member.1 = text,
            None => self.0.push((Cow::Owned(name.to_owned()), text)),
        }
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(it, _)| it != name);
    }

    /// The object as JSON: values as they were written, nothing between the members.
    pub(super) fn write(&self) -> String {
        let mut json = String::from("{");
        for (index, (name, text)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            json.push_str(comma);
            json.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            json.push(':');
            json.push_str(text);
        }
        json.push('}');
        json
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((Name(name), value)) = members.next_entry::<Name<'de>, &'de RawValue>()? {
            all.push((name, Cow::Borrowed(value.get())));
        }
        Ok(Members(all))
    }
}
