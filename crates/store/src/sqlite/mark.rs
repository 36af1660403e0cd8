//! The mark beside a ledger's file: how far its journal had come at the last commit.
//!
//! A file that was restored is a good file; nothing in it tells that it was promised more than it
//! knows. The mark does: it is not part of the file, and backups leave it behind.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::sqlite::open::{beside, private};

/// Which ledger it is: drawn at random when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LedgerId(u128);

impl LedgerId {
    pub(super) fn from_be_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    pub(super) fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) ledger: LedgerId,
    /// The last line of its journal.
    pub(super) journal: u64,
}

impl Reached {
    /// Always of the same length, and within one sector: written in place, it is there or not.
    fn text(self) -> String {
        format!("farebox-mark 1\nledger {:032x}\njournal {:020}\n", self.ledger.0, self.journal)
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("farebox-mark 1\nledger ")?;
        let (ledger, rest) = rest.split_once("\njournal ")?;
        let journal = rest.strip_suffix('\n')?;
        let ledger = LedgerId(u128::from_str_radix(ledger, 16).ok()?);
        Some(Self { ledger, journal: journal.parse().ok()? })
    }
}

/// The mark of a ledger that is being written.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: File,
    ledger: LedgerId,
}

/// What the mark beside a ledger's file says, if there is a readable one.
pub(super) fn read(ledger: &Path) -> io::Result<Option<Reached>> {
    match fs::read_to_string(beside(ledger, ".mark")) {
        Ok(text) => Ok(Reached::parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

impl Mark {
    /// Sets the mark, durably.
    pub(super) fn set(ledger: &Path, reached: Reached) -> io::Result<Self> {
        let path = beside(ledger, ".mark");
        let file = private().truncate(false).open(&path)?;
        let text = reached.text();
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
        file.sync_all()?;
        if let Some(directory) = ledger.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self { path, file, ledger: reached.ledger })
    }

    /// Moves it on, after a commit. Not forced to the disk: it has to survive the file, not the
    /// machine, and one that stands too low after a power cut accuses nobody.
    pub(super) fn reach(&self, journal: u64) {
        let reached = Reached { ledger: self.ledger, journal };
        if let Err(error) = self.file.write_all_at(reached.text().as_bytes(), 0) {
            let file = self.path.display();
            tracing::warn!(%file, %error, "the ledger's mark cannot be moved on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_set() {
        let directory = tempfile::TempDir::new().unwrap();
        let ledger = directory.path().join("farebox.db");
        assert_eq!(read(&ledger).unwrap(), None);
        let reached = Reached { ledger: LedgerId(7), journal: 41 };
        let mark = Mark::set(&ledger, reached).unwrap();
        assert_eq!(read(&ledger).unwrap(), Some(reached));
        mark.reach(u64::MAX);
        assert_eq!(read(&ledger).unwrap(), Some(Reached { journal: u64::MAX, ..reached }));
        let lower = Reached { ledger: LedgerId(u128::MAX), journal: 0 };
        drop(Mark::set(&ledger, lower).unwrap());
        assert_eq!(read(&ledger).unwrap(), Some(lower));
        for bad in ["", "farebox-mark 1\n", "farebox-mark 2\nledger 0\njournal 1\n", "\u{0}\u{0}"] {
            fs::write(directory.path().join("farebox.db.mark"), bad).unwrap();
            assert_eq!(read(&ledger).unwrap(), None, "{bad:?}");
        }
    }
}
