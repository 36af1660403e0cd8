//! The key that signs the journal's heads: a file beside the ledger and not a row in it, because who can
//! write the ledger should not be able to sign another one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use farebox_billing::audit::SigningKey;

/// Whether a key had been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was.
    Kept,
    /// It was made just now.
    Made,
}

/// The name of the key of a ledger.
pub(super) fn place(ledger: &Path) -> PathBuf {
    let mut name = OsString::from(ledger);
    name.push(".audit-key");
    name.into()
}

/// The key of a ledger, if it is there.
pub(super) fn load(ledger: &Path) -> io::Result<Option<SigningKey>> {
    let text = match fs::read_to_string(place(ledger)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "expected 64 hexadecimal digits");
    let mut secret = [0; 32];
    hex::decode_to_slice(text.trim_end(), &mut secret).map_err(|_| bad())?;
    SigningKey::from_secret(&secret).map(Some).map_err(io::Error::other)
}

/// The key of a ledger; made at random on first use. The caller holds the ledger's lock.
pub(super) fn load_or_make(ledger: &Path) -> io::Result<(SigningKey, Origin)> {
    if let Some(key) = load(ledger)? {
        return Ok((key, Origin::Kept));
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let key = SigningKey::from_secret(&secret).map_err(io::Error::other)?;
    let place = place(ledger);
    let mut fresh = OsString::from(&place);
    fresh.push(".new");
    // Whole or not at all, and there before anything is signed with it, whatever the power does.
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{}", hex::encode(secret))?;
    file.sync_all()?;
    fs::rename(&fresh, &place)?;
    if let Some(directory) = place.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok((key, Origin::Made))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_the_owner_alone() {
        let directory = TempDir::new().unwrap();
        let ledger = directory.path().join("farebox.db");
        assert!(load(&ledger).unwrap().is_none());
        let (made, origin) = load_or_make(&ledger).unwrap();
        assert_eq!(origin, Origin::Made);
        let (kept, origin) = load_or_make(&ledger).unwrap();
        assert_eq!((kept.public(), origin), (made.public(), Origin::Kept));
        let mode = fs::metadata(place(&ledger)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for bad in ["", "00", "x"] {
            fs::write(place(&ledger), bad).unwrap();
            let error = load_or_make(&ledger).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad}");
        }
    }
}
