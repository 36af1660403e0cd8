//! Every scheme that this build knows: a new one is a file and a line.

use crate::evm::Exact;
use crate::scheme::Scheme;

/// One row for each scheme and namespace.
pub static SCHEMES: &[&dyn Scheme] = &[&Exact];

/// The scheme of that name on networks of that namespace: `exact`, `eip155`.
pub fn find_scheme(name: &str, namespace: &str) -> Option<&'static dyn Scheme> {
    SCHEMES.iter().copied().find(|it| it.name() == name && it.namespace() == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_stands_once() {
        for row in SCHEMES {
            let same =
                |it: &&&dyn Scheme| (it.name(), it.namespace()) == (row.name(), row.namespace());
            assert_eq!(SCHEMES.iter().filter(same).count(), 1, "{row:?}");
            assert!(find_scheme(row.name(), row.namespace()).is_some(), "{row:?}");
        }
        assert!(find_scheme("exact", "solana").is_none());
    }
}
