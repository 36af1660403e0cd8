//! The quote seal over all inputs: attack row A2.

use farebox_protocol::{
    Amount, BadSeal, Digest, Network, QuoteTerms, Seal, SealKey, Timestamp, bound_nonce,
    is_bound_nonce,
};
use proptest::prelude::*;

/// Everything that a seal binds, owned.
#[derive(Clone, Debug, PartialEq)]
struct Quote {
    method: String,
    target: String,
    body: Vec<u8>,
    scheme: String,
    chain_id: u64,
    asset: String,
    units: u128,
    pay_to: String,
    max_timeout_seconds: u64,
}

impl Quote {
    fn with_terms<T>(&self, use_terms: impl FnOnce(&QuoteTerms<'_>) -> T) -> T {
        let network = Network::eip155(self.chain_id);
        use_terms(&QuoteTerms {
            method: &self.method,
            target: &self.target,
            body: Digest::of(&self.body),
            scheme: &self.scheme,
            network: &network,
            asset: &self.asset,
            amount: Amount::from_units(self.units),
            pay_to: &self.pay_to,
            max_timeout_seconds: self.max_timeout_seconds,
        })
    }
}

/// Few and short texts, so that fields that run together would be found.
fn quote() -> impl Strategy<Value = Quote> {
    let text = || "[ab]{0,2}";
    let request = (text(), text(), proptest::collection::vec(0_u8..2, 0..3), text());
    let money = (0_u64..3, text(), 0_u128..3, text(), 0_u64..3);
    (request, money).prop_map(
        |(
            (method, target, body, scheme),
            (chain_id, asset, units, pay_to, max_timeout_seconds),
        )| {
            Quote {
                method,
                target,
                body,
                scheme,
                chain_id,
                asset,
                units,
                pay_to,
                max_timeout_seconds,
            }
        },
    )
}

fn seal() -> impl Strategy<Value = Seal> {
    (1_u64..1_000_000, "[0-9a-f]{1,8}", any::<u64>()).prop_map(|(seconds, price_version, salt)| {
        Seal { expires_at: Timestamp::from_seconds(seconds), price_version, salt }
    })
}

const EARLY: Timestamp = Timestamp::from_seconds(0);

proptest! {
    #[test]
    fn a02_a_seal_opens_for_its_own_quote_only(
        key in any::<[u8; 32]>(),
        seal in seal(),
        quote in quote(),
        other in quote(),
    ) {
        let key = SealKey::new(key);
        let text = quote.with_terms(|terms| seal.write(&key, terms));
        let opened = quote.with_terms(|terms| Seal::open(&text, &key, terms, EARLY));
        prop_assert_eq!(opened, Ok(seal.clone()));
        let expired = quote.with_terms(|terms| Seal::open(&text, &key, terms, seal.expires_at));
        prop_assert_eq!(expired, Err(BadSeal::Expired));
        let opened = other.with_terms(|terms| Seal::open(&text, &key, terms, EARLY));
        let expected = if quote == other { Ok(seal) } else { Err(BadSeal::Mismatch) };
        prop_assert_eq!(opened, expected);
    }

    #[test]
    fn a02_a_seal_opens_with_its_own_key_only(
        key in any::<[u8; 32]>(),
        other in any::<[u8; 32]>(),
        seal in seal(),
        quote in quote(),
    ) {
        prop_assume!(key != other);
        let text = quote.with_terms(|terms| seal.write(&SealKey::new(key), terms));
        let opened = quote.with_terms(|it| Seal::open(&text, &SealKey::new(other), it, EARLY));
        prop_assert_eq!(opened, Err(BadSeal::Mismatch));
    }

    #[test]
    fn a02_no_changed_byte_of_a_seal_is_accepted(
        seal in seal(),
        quote in quote(),
        at in any::<prop::sample::Index>(),
        byte in 0x21_u8..0x7f,
    ) {
        let key = SealKey::new([7; 32]);
        let good = quote.with_terms(|terms| seal.write(&key, terms));
        let mut text = good.clone().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let text = String::from_utf8(text).unwrap();
        // Hexadecimal digits and a leading zero can be spelled in two ways; the content cannot.
        match quote.with_terms(|terms| Seal::open(&text, &key, terms, EARLY)) {
            Ok(opened) => prop_assert_eq!(opened, seal, "{} for {}", text, good),
            Err(error) => prop_assert!(error != BadSeal::Expired),
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,120}") {
        let key = SealKey::new([7; 32]);
        let quote = Quote {
            method: String::new(),
            target: String::new(),
            body: Vec::new(),
            scheme: String::new(),
            chain_id: 1,
            asset: String::new(),
            units: 1,
            pay_to: String::new(),
            max_timeout_seconds: 1,
        };
        let opened = quote.with_terms(|terms| Seal::open(&text, &key, terms, EARLY));
        prop_assert!(opened.is_err());
    }

    #[test]
    fn a_nonce_is_bound_to_one_seal(one in ".{0,40}", two in ".{0,40}") {
        prop_assert!(is_bound_nonce(&bound_nonce(&one)));
        prop_assert_eq!(bound_nonce(&one) == bound_nonce(&two), one == two);
    }
}
