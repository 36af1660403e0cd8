//! The name of a price book: what a quote seal says it was priced with.

use farebox_protocol::DigestBuilder;

use super::Price;

/// Hexadecimal digits of the name.
const VERSION_DIGITS: usize = 8;

/// A short, stable name for a table of route prices: the first 8 hexadecimal digits of SHA-256 over
/// its canonical form. The order of routes and the spelling of prices (`0.10`, `0.1`) do not
/// matter; any other change of a name or price gives another name.
pub fn price_version(table: &[(&str, Price)]) -> String {
    let mut rows: Vec<_> = table.iter().map(|(route, price)| (*route, price.to_string())).collect();
    rows.sort_unstable();
    let mut digest = DigestBuilder::new("farebox price book v1");
    for (route, price) in rows {
        digest = digest.field(route.as_bytes()).field(price.as_bytes());
    }
    digest.finish().to_string().chars().take(VERSION_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Price {
        Price::PerRequest(text.parse().unwrap())
    }

    #[test]
    fn the_name_changes_with_the_prices_alone() {
        let version = price_version(&[("a", flat("0.10")), ("b", Price::Free)]);
        assert_eq!(version.len(), VERSION_DIGITS);
        assert!(version.bytes().all(|it| it.is_ascii_hexdigit()));
        assert_eq!(version, price_version(&[("b", Price::Free), ("a", flat("0.1"))]));
        for other in [
            vec![("a", flat("0.11")), ("b", Price::Free)],
            vec![("c", flat("0.1")), ("b", Price::Free)],
            vec![("a", flat("0.1"))],
            vec![("b", flat("0.1")), ("a", Price::Free)],
        ] {
            assert_ne!(version, price_version(&other), "{other:?}");
        }
    }

    #[test]
    fn the_name_is_stable_between_releases() {
        assert_eq!(price_version(&[("a", flat("0.1"))]), "1b88b023");
    }
}
