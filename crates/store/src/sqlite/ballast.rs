//! Room that is set aside while there is some, so that what was promised can be kept when there is
//! none: a file that is given up when the disk is full.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::sqlite::copy::available;
use crate::sqlite::open::{beside, private};

/// Written at once where space cannot be had without writing.
const CHUNK: usize = 1 << 20;

/// Whether there is room for new payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The ballast is there.
    Enough,
    /// It is not, and does not fit.
    None,
}

/// The file, whether it is there or not.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// Of a ledger's file; none with 0 bytes.
    pub(super) fn of(ledger: &Path, bytes: u64) -> Self {
        Self { path: beside(ledger, ".ballast"), bytes }
    }

    /// Whether there is to be one.
    pub(super) fn is_wanted(&self) -> bool {
        self.bytes != 0
    }

    /// Sees to it that it is there, if it fits and leaves some room beside.
    pub(super) fn make(&self) -> io::Result<Room> {
        if self.is_there() {
            return Ok(Room::Enough);
        }
        self.release()?;
        if self.bytes == 0 {
            return Ok(Room::Enough);
        }
        let margin = self.bytes / 4;
        if available(&self.path)? < self.bytes.saturating_add(margin) {
            return Ok(Room::None);
        }
        let file = private().create_new(true).open(&self.path)?;
        match fill(&file, self.bytes).and_then(|()| file.sync_all()) {
            Ok(()) => Ok(Room::Enough),
            Err(error) => {
                self.release()?;
                let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
                if full.contains(&error.kind()) { Ok(Room::None) } else { Err(error) }
            }
        }
    }

    /// Gives its room up; whether there was any.
    pub(super) fn release(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_there(&self) -> bool {
        let Ok(found) = fs::metadata(&self.path) else { return false };
        found.len() == self.bytes && self.bytes <= found.blocks().saturating_mul(512)
    }
}

/// Takes the space, not only the length.
fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        done => return Ok(done?),
    }
    // What a file system that compresses cannot make smaller.
    let mut chunk = vec![0; CHUNK];
    getrandom::fill(&mut chunk).map_err(io::Error::other)?;
    let mut left = bytes;
    while left != 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.write_all(chunk.get(..now).unwrap_or_default())?;
        left = left.saturating_sub(u64::try_from(now).unwrap_or(left));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ballast_takes_space_and_gives_it_back() {
        let directory = tempfile::TempDir::new().unwrap();
        let ledger = directory.path().join("farebox.db");
        let ballast = Ballast::of(&ledger, 3 << 20);
        assert_eq!(ballast.make().unwrap(), Room::Enough);
        assert!(ballast.is_there());
        assert_eq!(ballast.make().unwrap(), Room::Enough, "made already");
        assert!(ballast.release().unwrap());
        assert!(!ballast.release().unwrap());
        // One of another size, or one that only says its length, is made anew.
        File::create(directory.path().join("farebox.db.ballast"))
            .unwrap()
            .set_len(3 << 20)
            .unwrap();
        assert!(!ballast.is_there());
        assert_eq!(ballast.make().unwrap(), Room::Enough);
        assert!(ballast.is_there());
        assert_eq!(Ballast::of(&ledger, u64::MAX / 2).make().unwrap(), Room::None);
        assert!(!ballast.is_there(), "no disk has room for that");
        assert_eq!(Ballast::of(&ledger, 0).make().unwrap(), Room::Enough);
    }
}
