//! A document with gaps: written as JSON once, filled in for each request.
//!
//! Whoever has not paid may ask for offers without end, so an answer should cost no more than its
//! bytes. All that differs between two answers of a route is what [`Gap`] names.

use std::fmt::Write as _;

use farebox_protocol::Amount;
use serde::Serialize;

/// What a request decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// Why payment is required.
    Error,
    /// The address of what is for sale.
    Url,
    /// The seal of an offer.
    Quote(usize),
    /// The amount of an offer.
    Amount(usize),
}

/// A document without what a request decides.
#[derive(Debug)]
pub(crate) struct Template {
    /// Texts, each with the gap behind it.
    pieces: Vec<(Box<str>, Gap)>,
    end: Box<str>,
}

/// What goes into the gaps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling<'a> {
    /// Why payment is required.
    pub(crate) error: &'a str,
    /// The address in two halves.
    pub(crate) url: [&'a str; 2],
    /// For each offer its amount and its seal.
    pub(crate) offers: &'a [(Amount, String)],
}

impl Gap {
    /// What stands for it where a document has a text.
    pub(crate) fn mark(self) -> String {
        match self {
            Self::Error => "\u{1}error".to_owned(),
            Self::Url => "\u{1}url".to_owned(),
            Self::Quote(offer) => format!("\u{1}quote {offer}"),
            Self::Amount(offer) => amount_mark(offer).to_string(),
        }
    }
}

/// What stands for the amount of an offer: more than there is of any token.
pub(crate) fn amount_mark(offer: usize) -> Amount {
    let offer = u128::try_from(offer).unwrap_or(u128::MAX);
    Amount::from_units(u128::MAX.saturating_sub(offer))
}

impl Template {
    /// From a document of so many offers that has marks where the gaps will be.
    ///
    /// A mark is a whole JSON string: no backslash is before its first quote.
    pub(crate) fn new(document: &impl Serialize, offers: usize) -> serde_json::Result<Self> {
        let of_offers = (0..offers).flat_map(|it| [Gap::Quote(it), Gap::Amount(it)]);
        let marks: Vec<(String, Gap)> = [Gap::Error, Gap::Url]
            .into_iter()
            .chain(of_offers)
            .map(|gap| Ok((serde_json::to_string(&gap.mark())?, gap)))
            .collect::<serde_json::Result<_>>()?;
        let text = serde_json::to_string(document)?;
        let (mut pieces, mut rest) = (Vec::new(), text.as_str());
        while let Some((gap, (before, behind))) = marks
            .iter()
            .filter_map(|(mark, gap)| Some((*gap, split_at_string(rest, mark)?)))
            .min_by_key(|(_, (before, _))| before.len())
        {
            pieces.push((before.into(), gap));
            rest = behind;
        }
        Ok(Self { pieces, end: rest.into() })
    }

    /// The document.
    pub(crate) fn fill(&self, filling: &Filling<'_>) -> String {
        let mut out = String::with_capacity(self.length_of(filling));
        for (text, gap) in &self.pieces {
            out.push_str(text);
            match *gap {
                Gap::Error => push_text(&mut out, &[filling.error]),
                Gap::Url => push_text(&mut out, &filling.url),
                Gap::Quote(offer) => {
                    let quote = filling.offers.get(offer).map_or("", |(_, quote)| quote);
                    push_text(&mut out, &[quote]);
                }
                Gap::Amount(offer) => {
                    let amount = filling.offers.get(offer).map_or(Amount::ZERO, |it| it.0);
                    // Writing to a String cannot fail.
                    write!(out, "\"{amount}\"").unwrap_or_default();
                }
            }
        }
        out.push_str(&self.end);
        out
    }

    /// Enough room, unless something has to be escaped.
    fn length_of(&self, filling: &Filling<'_>) -> usize {
        const AMOUNT_BYTES_MAX: usize = 41;
        let texts = self.pieces.iter().map(|(text, _)| text.len()).chain([self.end.len()]);
        let gaps = self.pieces.iter().map(|(_, gap)| match *gap {
            Gap::Error => filling.error.len(),
            Gap::Url => filling.url.iter().map(|it| it.len()).sum(),
            Gap::Quote(offer) => filling.offers.get(offer).map_or(0, |(_, quote)| quote.len()),
            Gap::Amount(_) => AMOUNT_BYTES_MAX,
        });
        let quotes = self.pieces.len().saturating_mul(2);
        texts.chain(gaps).fold(quotes, usize::saturating_add)
    }
}

/// What is before a string in a JSON text, and what is behind it.
fn split_at_string<'a>(json: &'a str, string: &str) -> Option<(&'a str, &'a str)> {
    json.match_indices(string).find_map(|(at, it)| {
        let (before, from) = json.split_at_checked(at)?;
        let behind = from.strip_prefix(it)?;
        (!before.ends_with('\\')).then_some((before, behind))
    })
}

/// A JSON string of several parts.
fn push_text(out: &mut String, parts: &[&str]) {
    out.push('"');
    for part in parts {
        // Looked through to the end: that is done many bytes at a time.
        let is_special = |it| u8::from(matches!(it, 0..b' ' | b'"' | b'\\'));
        if part.bytes().fold(0, |any, it| any | is_special(it)) != 0 {
            let escaped = serde_json::Value::from(*part).to_string();
            out.push_str(escaped.trim_start_matches('"').strip_suffix('"').unwrap_or_default());
        } else {
            out.push_str(part);
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The document with these values, whether they are written into it or into its gaps.
    #[track_caller]
    fn check(document: impl Fn([&str; 2], &[(String, String)]) -> Value, filling: &Filling<'_>) {
        let marks = (0..filling.offers.len())
            .map(|it| (Gap::Amount(it).mark(), Gap::Quote(it).mark()))
            .collect::<Vec<_>>();
        let (error, url) = (Gap::Error.mark(), Gap::Url.mark());
        let template = Template::new(&document([&error, &url], &marks), marks.len()).unwrap();
        let values = filling.offers.iter().map(|(a, q)| (a.to_string(), q.clone()));
        let url = filling.url.concat();
        let plain = document([filling.error, &url], &values.collect::<Vec<_>>()).to_string();
        assert_eq!(template.fill(filling), plain);
    }

    #[test]
    fn gaps_are_filled_where_they_are_and_nowhere_else() {
        let offers = |offers: &[(String, String)]| -> Vec<Value> {
            let offer = |(amount, quote): &(String, String)| json!({ "q": quote, "a": amount });
            offers.iter().map(offer).collect()
        };
        let two = [
            (Amount::from_units(10), "1.2.3".to_owned()),
            (Amount::MAX, "quoted \" \\ \n \u{1}url".to_owned()),
        ];
        let filling =
            Filling { error: "Payment required", url: ["https://a/", "b?c=%22"], offers: &two };
        check(|[error, url], it| json!([error, { "url": url, "accepts": offers(it) }]), &filling);
        check(|[error, url], it| json!([offers(it), url, url, error]), &filling);
        check(|[_, _], _| json!({ "no": "gaps" }), &filling);
        for decoy in ["\"\\u0001url\"", " \u{1}url", "\"\u{1}url", "\\\"\u{1}url", "\u{1}url\""] {
            check(|[error, url], _| json!({ "a": decoy, "b": error, "c": url }), &filling);
        }
        let odd = Filling { error: "\"", url: ["\\", "\"\""], offers: &two };
        check(|[error, url], it| json!([error, url, offers(it)]), &odd);
        let none = Filling { error: "", url: ["", ""], offers: &[] };
        check(|[error, url], it| json!([error, url, offers(it)]), &none);
    }
}
