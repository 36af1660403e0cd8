//! JSON in which no object has a name twice.
//!
//! RFC 8259 §4 leaves open what a doubled name means: some readers take the first, some the last.
//! The price must not depend on it, so such a document is refused, at every depth.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{BadBody, Pointer};

/// Objects up to this many names are searched in a row; larger ones get a hash set.
const LINEAR_NAMES_MAX: usize = 16;

/// Checks a whole document. Nesting is bounded by `serde_json` (128 levels).
pub(super) fn check(body: &[u8]) -> Result<(), BadBody> {
    let mut doubled = None;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let walk = Walk { pointer: &Trail::Root, doubled: &mut doubled };
    let outcome = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (doubled, outcome) {
        (Some(pointer), _) => Err(pointer.ambiguous()),
        (None, Err(error)) => Err(BadBody::NotJson(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// The way to the value being read; becomes a [`Pointer`] only when something is wrong.
enum Trail<'a> {
    Root,
    Name(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    fn pointer(&self) -> Pointer {
        match self {
            Self::Root => Pointer::default(),
            Self::Name(parent, name) => parent.pointer().name(name),
            Self::Index(parent, index) => parent.pointer().index(*index),
        }
    }
}

/// Reads one value and keeps nothing of it.
struct Walk<'a> {
    pointer: &'a Trail<'a>,
    doubled: &'a mut Option<Pointer>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let pointer = &Trail::Index(self.pointer, index);
            let walk = Walk { pointer, doubled: &mut *self.doubled };
            if items.next_element_seed(walk)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(name) = members.next_key::<String>()? {
            let pointer = &Trail::Name(self.pointer, &name);
            if names.contains(&name) {
                *self.doubled = Some(pointer.pointer());
                return Err(A::Error::custom("a name occurs twice"));
            }
            members.next_value_seed(Walk { pointer, doubled: &mut *self.doubled })?;
            names.insert(name);
        }
        Ok(())
    }
}

/// The names seen in one object.
#[derive(Default)]
struct Names {
    few: Vec<String>,
    many: HashSet<String>,
}

impl Names {
    fn contains(&self, name: &str) -> bool {
        self.few.iter().any(|it| it == name) || self.many.contains(name)
    }

    fn insert(&mut self, name: String) {
        if self.few.len() < LINEAR_NAMES_MAX {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
    }
}
