//! JSON in which no object has a name twice, and that is of a bounded number of values.
//!
//! RFC 8259 §4 leaves open what a doubled name means: some readers take the first, some the last.
//! The price must not depend on it, so such a document is refused, at every depth. Nobody has paid
//! yet when this is read: the names of the objects that are open are all that is kept, and the bound
//! on values bounds the time as well (attack A32).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::Name;
use super::{BadBody, Pointer};

/// The most values of a document, those within others included. A request of ten thousand messages
/// has some fifty thousand.
const VALUES_MAX: u32 = 250_000;
/// The most names of one object: more than any JSON schema or bias has, and quickly compared.
const NAMES_MAX: usize = 10_000;
/// Objects up to this many names are searched in a row; larger ones get a hash set.
const LINEAR_NAMES_MAX: usize = 16;

/// Checks a whole document. Nesting is bounded by `serde_json` (128 levels).
pub(super) fn check(body: &[u8]) -> Result<(), BadBody> {
    let mut state = State { refused: None, values_left: VALUES_MAX, names: Vec::new() };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let walk = Walk { pointer: &Trail::Root, state: &mut state };
    let outcome = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (state.refused, outcome) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(BadBody::NotJson(error)),
        (None, Ok(())) => Ok(()),
    }
}

/// What the readers of all values share.
struct State<'de> {
    refused: Option<BadBody>,
    values_left: u32,
    /// The names of all open objects, the innermost last: of each the first few.
    names: Vec<Cow<'de, str>>,
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
struct Walk<'a, 'de> {
    pointer: &'a Trail<'a>,
    state: &'a mut State<'de>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(left) = self.state.values_left.checked_sub(1) else {
            let most = format_args!("at most {VALUES_MAX} values in all");
            self.state.refused = Some(self.pointer.pointer().unexpected(most, "more"));
            return Err(D::Error::custom("too many values"));
        };
        self.state.values_left = left;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
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
            let walk = Walk { pointer, state: &mut *self.state };
            if items.next_element_seed(walk)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = Names { first: self.state.names.len(), many: HashSet::new() };
        while let Some(Name(name)) = members.next_key::<Name<'de>>()? {
            let pointer = &Trail::Name(self.pointer, &name);
            if names.contains(&name, self.state) {
                self.state.refused = Some(pointer.pointer().ambiguous());
                return Err(A::Error::custom("a name occurs twice"));
            }
            if NAMES_MAX <= names.count(self.state) {
                let most = format_args!("at most {NAMES_MAX} names in one object");
                self.state.refused = Some(self.pointer.pointer().unexpected(most, "more"));
                return Err(A::Error::custom("too many names"));
            }
            members.next_value_seed(Walk { pointer, state: &mut *self.state })?;
            names.insert(name, self.state);
        }
        self.state.names.truncate(names.first);
        Ok(())
    }
}

/// The names seen in one object.
struct Names<'de> {
    /// Where they begin in [`State::names`].
    first: usize,
    /// Those that are more than a few.
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    fn contains(&self, name: &str, state: &State<'de>) -> bool {
        let few = state.names.get(self.first..).unwrap_or_default();
        few.iter().any(|it| it == name) || self.many.contains(name)
    }

    fn count(&self, state: &State<'de>) -> usize {
        state.names.len().saturating_sub(self.first).saturating_add(self.many.len())
    }

    fn insert(&mut self, name: Cow<'de, str>, state: &mut State<'de>) {
        if state.names.len().saturating_sub(self.first) < LINEAR_NAMES_MAX {
            state.names.push(name);
        } else {
            self.many.insert(name);
        }
    }
}
