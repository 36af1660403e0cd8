//! What a person who starts the chain by hand wants to see: where it is, and keys to pay with.

use std::fmt;

use crate::{
    accounts::{DEV_ACCOUNTS, DEV_MNEMONIC},
    contracts::TOKEN_ADDRESS,
};

/// The facts to print, and their printed form (`Display`, several lines, the last one ended).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// Where JSON-RPC is served.
    pub url: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "RPC        {}", self.url)?;
        writeln!(f, "Chain id   {}", self.chain_id)?;
        writeln!(f, "USDC       {TOKEN_ADDRESS}")?;
        writeln!(f, "Mnemonic   {DEV_MNEMONIC}")?;
        writeln!(f)?;
        writeln!(f, "Accounts, each with 10,000 ETH and 1,000,000 USDC; the keys are public:")?;
        for (index, account) in DEV_ACCOUNTS.iter().enumerate() {
            writeln!(f, "({index}) {} {}", account.address, account.private_key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_everything_one_needs_to_connect() {
        let banner = Banner { url: "http://127.0.0.1:8545".to_owned(), chain_id: 84_532 };
        let text = banner.to_string();
        for needed in
            ["http://127.0.0.1:8545", "84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e"]
        {
            assert!(text.contains(needed), "{needed} is missing from:\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with('(')).count(), 10);
    }
}
