//! Amounts over all inputs.

use farebox_protocol::{Amount, OutOfRange};
use proptest::prelude::*;

proptest! {
    #[test]
    fn text_and_bytes_read_back(units in any::<u128>()) {
        let amount = Amount::from_units(units);
        prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        prop_assert_eq!(Amount::from_be_bytes(amount.to_be_bytes()), amount);
        let json = serde_json::to_string(&amount).unwrap();
        prop_assert_eq!(&json, &format!("\"{units}\""));
        prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
        prop_assert!(serde_json::from_str::<Amount>(&units.to_string()).is_err());
    }

    #[test]
    fn every_amount_has_one_text(text in "[0-9+ .e-]{0,40}") {
        if let Ok(amount) = text.parse::<Amount>() {
            prop_assert_eq!(amount.to_string(), text);
        }
    }

    #[test]
    fn arithmetic_is_exact_or_refused(a in any::<u128>(), b in any::<u128>()) {
        let (x, y) = (Amount::from_units(a), Amount::from_units(b));
        let units = |it: Result<Amount, OutOfRange>| it.ok().map(Amount::units);
        prop_assert_eq!(units(x.checked_add(y)), a.checked_add(b));
        prop_assert_eq!(units(x.checked_sub(y)), a.checked_sub(b));
        prop_assert_eq!(units(x.checked_mul(b)), a.checked_mul(b));
        prop_assert_eq!(x.cmp(&y), x.to_be_bytes().cmp(&y.to_be_bytes()));
    }

    #[test]
    fn the_human_form_is_the_same_number(units in any::<u128>(), decimals in 0_u8..=40) {
        let text = Amount::from_units(units).in_tokens(decimals);
        let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        prop_assert_eq!(fraction, usize::from(decimals));
        let digits: String = text.chars().filter(|it| *it != '.').collect();
        let digits = digits.trim_start_matches('0');
        let digits = if digits.is_empty() { "0" } else { digits };
        prop_assert_eq!(digits.to_owned(), units.to_string());
    }
}
