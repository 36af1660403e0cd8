//! Contracts as they are on public chains, read from the npm packages that carry their code. Tests
//! hold ours against them; nothing of them is in this repository.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::process::{StartError, installed, workspace};

const PACKAGES: &str = "tests/clients/js/node_modules";
const PERMIT2: &str = "@uniswap/v4-periphery/lib/permit2/test/utils/DeployPermit2.sol";
const VIEM_CONTRACTS: &str = "viem/constants/contracts.ts";

/// Why the code of a contract cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RealError {
    /// Its package was never installed.
    #[error(transparent)]
    Missing(#[from] StartError),
    /// The file that has it cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The package keeps it in another way now.
    #[error("{} has no code after {mark:?}", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
        /// What comes before the code.
        mark: &'static str,
    },
}

/// Run-time code of Uniswap's Permit2, `0x…`. It was built for another chain, so it computes its
/// EIP-712 domain anew, as after a fork.
pub fn permit2_code() -> Result<String, RealError> {
    literal(PERMIT2, "hex\"")
}

/// Creation code of Multicall3, `0x…`: a call of it without a recipient answers the run-time code.
pub fn multicall3_creation() -> Result<String, RealError> {
    literal(VIEM_CONTRACTS, "multicall3Bytecode =\n  '0x")
}

/// Creation code of the validator that ERC-6492 gives, `0x…`: followed by `abi.encode(signer, hash,
/// signature)` and called without a recipient, it answers one byte, 1 if the account has signed or
/// would have once it is deployed.
pub fn erc6492_validator_creation() -> Result<String, RealError> {
    literal(VIEM_CONTRACTS, "erc6492SignatureValidatorByteCode =\n  '0x")
}

/// The hexadecimal digits that follow `mark` in a file of a package.
fn literal(file: &str, mark: &'static str) -> Result<String, RealError> {
    let path = installed(workspace().join(PACKAGES).join(file))?;
    let text = fs::read_to_string(&path)
        .map_err(|source| RealError::Unreadable { path: path.clone(), source })?;
    let digits = text
        .split_once(mark)
        .map(|(_, after)| after.chars().take_while(char::is_ascii_hexdigit).collect::<String>());
    match digits {
        Some(digits) if !digits.is_empty() => Ok(format!("0x{digits}")),
        _ => Err(RealError::Absent { path, mark }),
    }
}
