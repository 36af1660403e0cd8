//! A disk that can lose its power: what was forced to it is there, the rest is chance.
//!
//! What was written and not forced is there, or not, or torn between two sectors, each write for
//! itself and in no order. Names that were made or removed since the directory was last forced may
//! be as they were; they change in their order, as in the journal of a file system.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::crash::random::Random;
use crate::crash::trace::{Mode, Outcome, Step, Where};

/// What a disk writes whole, at least.
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// Files by name, with what is in them.
pub(super) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// Whether the disk does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Honesty {
    Honest,
    /// It forgets what it was forced to keep, as much as what it was not.
    Lying,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    honesty: Honesty,
    files: Vec<File>,
    /// What the kernel shows.
    names: BTreeMap<PathBuf, usize>,
    /// What is on the disk.
    kept_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<(PathBuf, Option<usize>)>,
    /// Syncs that go on: the file, none for the directory, and how much was pending.
    syncs: BTreeMap<usize, (Option<usize>, usize)>,
}

#[derive(Clone, Debug, Default)]
struct File {
    kept: Vec<u8>,
    /// What the kernel shows.
    length: usize,
    pending: Vec<Change>,
    /// How much of what was ever pending is kept or given up.
    done: usize,
}

#[derive(Clone, Debug)]
enum Change {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Resize(usize),
    /// A write whose sync has failed: the kernel believes that it is on the disk, and it never
    /// will be.
    GivenUp,
}

impl Disk {
    /// A disk with that on it.
    pub(super) fn new(directory: &Path, image: &Image, honesty: Honesty) -> Self {
        let file = |it: &Vec<u8>| File { kept: it.clone(), length: it.len(), ..File::default() };
        let names: BTreeMap<_, _> = image.keys().cloned().zip(0..).collect();
        Self {
            directory: directory.to_owned(),
            honesty,
            files: image.values().map(file).collect(),
            kept_names: names.clone(),
            names,
            pending_names: Vec::new(),
            syncs: BTreeMap::new(),
        }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Opened { path, mode } => {
                if !self.names.contains_key(path) {
                    self.files.push(File::default());
                    self.name(path, Some(self.files.len() - 1));
                } else if *mode == Mode::Truncate {
                    self.resize(path, 0);
                }
            }
            Step::Written { path, at, bytes } => {
                let Some(file) = self.file(path) else { return };
                let offset = match at {
                    Where::Offset(offset) => *offset,
                    Where::End => file.length,
                };
                file.length = file.length.max(offset + bytes.len());
                file.pending.push(Change::Write { offset, bytes: bytes.clone() });
            }
            Step::Resized { path, length } => self.resize(path, *length),
            Step::Extended { path, length } => {
                let shown = self.file(path).map_or(usize::MAX, |it| it.length);
                if shown < *length {
                    self.resize(path, *length);
                }
            }
            Step::Removed(path) => self.name(path, None),
            Step::Renamed { from, to } => {
                let file = self.names.get(from).copied();
                self.name(to, file);
                self.name(from, None);
            }
            Step::SyncBegun { path, number } => {
                if *path == self.directory {
                    self.syncs.insert(*number, (None, self.pending_names.len()));
                } else if let Some(file) = self.names.get(path).copied() {
                    let it = &self.files[file];
                    self.syncs.insert(*number, (Some(file), it.done + it.pending.len()));
                }
            }
            Step::SyncEnded { number, outcome } => self.end_sync(*number, *outcome),
            Step::Said(_) => {}
        }
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        self.names.get(path).map(|it| &mut self.files[*it])
    }

    fn resize(&mut self, path: &Path, length: usize) {
        if let Some(file) = self.file(path) {
            file.length = length;
            file.pending.push(Change::Resize(length));
        }
    }

    fn name(&mut self, path: &Path, file: Option<usize>) {
        match file {
            Some(file) => drop(self.names.insert(path.to_owned(), file)),
            None => drop(self.names.remove(path)),
        }
        self.pending_names.push((path.to_owned(), file));
    }

    fn end_sync(&mut self, number: usize, outcome: Outcome) {
        let Some((file, upto)) = self.syncs.remove(&number) else { return };
        if self.honesty == Honesty::Lying {
            return;
        }
        match (file, outcome) {
            (Some(file), outcome) => self.files[file].end_sync(upto, outcome),
            (None, Outcome::Done) => {
                let upto = upto.min(self.pending_names.len());
                for (path, file) in self.pending_names.drain(..upto) {
                    rename(&mut self.kept_names, path, file);
                }
            }
            (None, Outcome::Failed) => {}
        }
    }

    /// What there is when the power comes back.
    pub(super) fn cut(&self, random: &mut Random) -> Image {
        let luck = Luck::draw(random);
        let mut names = self.kept_names.clone();
        let whole = u64::try_from(self.pending_names.len()).unwrap();
        let kept = match luck {
            Luck::All => whole,
            Luck::Nothing => 0,
            Luck::Each => random.below(whole + 1),
        };
        for (path, file) in self.pending_names.iter().take(kept.try_into().unwrap()) {
            rename(&mut names, path.clone(), *file);
        }
        let content = |file: usize, random: &mut Random| self.files[file].after_cut(luck, random);
        names.into_iter().map(|(path, file)| (path, content(file, random))).collect()
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, path: PathBuf, file: Option<usize>) {
    match file {
        Some(file) => drop(names.insert(path, file)),
        None => drop(names.remove(&path)),
    }
}

/// What becomes of what was not forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Luck {
    All,
    Nothing,
    Each,
}

impl Luck {
    fn draw(random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::All,
            1 => Self::Nothing,
            _ => Self::Each,
        }
    }
}

impl File {
    fn end_sync(&mut self, upto: usize, outcome: Outcome) {
        let count = upto.saturating_sub(self.done).min(self.pending.len());
        match outcome {
            Outcome::Done => {
                for change in self.pending.drain(..count) {
                    change.apply(&mut self.kept);
                }
                self.done += count;
            }
            Outcome::Failed => {
                let written = |it: &&mut Change| matches!(it, Change::Write { .. });
                for change in self.pending[..count].iter_mut().filter(written) {
                    *change = Change::GivenUp;
                }
            }
        }
    }

    fn after_cut(&self, luck: Luck, random: &mut Random) -> Vec<u8> {
        let mut content = self.kept.clone();
        for change in &self.pending {
            match luck {
                Luck::All => change.apply(&mut content),
                Luck::Nothing => {}
                Luck::Each => change.perhaps(&mut content, random),
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(content, *offset, bytes),
            Self::Resize(length) => content.resize(*length, 0),
            Self::GivenUp => {}
        }
    }

    fn perhaps(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Self::Write { offset, bytes } = self else {
            if random.below(2) == 0 {
                self.apply(content);
            }
            return;
        };
        match random.below(5) {
            0 => {}
            1 => self.apply(content),
            // The file has grown, but what was to be there is not.
            2 => content.resize(content.len().max(offset + bytes.len()), 0),
            3 => tear(content, *offset, bytes, SECTOR, random),
            _ => tear(content, *offset, bytes, PAGE, random),
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

/// Of what a write covers, each sector of the disk is new or old.
fn tear(content: &mut Vec<u8>, offset: usize, bytes: &[u8], sector: usize, random: &mut Random) {
    let (mut start, end) = (offset, offset + bytes.len());
    while start < end {
        let stop = end.min((start / sector + 1) * sector);
        if random.below(2) == 0 {
            write(content, start, &bytes[start - offset..stop - offset]);
        }
        start = stop;
    }
}

#[test]
fn what_was_forced_is_there_and_the_rest_is_chance() {
    let (directory, path) = (PathBuf::from("/d"), PathBuf::from("/d/f"));
    let mut disk = Disk::new(&directory, &Image::new(), Honesty::Honest);
    let written = |at: usize, byte: u8| Step::Written {
        path: path.clone(),
        at: Where::Offset(at),
        bytes: vec![byte; 1024],
    };
    let sync = |disk: &mut Disk, path: &Path, outcome| {
        disk.apply(&Step::SyncBegun { path: path.to_owned(), number: 1 });
        disk.apply(&Step::SyncEnded { number: 1, outcome });
    };
    let outcomes = |disk: &Disk| {
        let cut = |seed| disk.cut(&mut Random::new(seed)).remove(&path);
        (0..500).map(cut).collect::<std::collections::BTreeSet<_>>()
    };
    disk.apply(&Step::Opened { path: path.clone(), mode: Mode::Keep });
    disk.apply(&written(0, 1));
    sync(&mut disk, &path, Outcome::Done);
    let forced = Some(vec![1; 1024]);
    assert_eq!(outcomes(&disk), [None, forced.clone()].into(), "its name was not forced");
    sync(&mut disk, &directory, Outcome::Done);
    assert_eq!(outcomes(&disk), [forced.clone()].into());
    disk.apply(&written(0, 2));
    let torn = |a, b| Some([[a; 512], [b; 512]].concat());
    let expected = [forced.clone(), torn(1, 2), torn(2, 1), torn(2, 2)];
    assert_eq!(outcomes(&disk), expected.into());
    sync(&mut disk, &path, Outcome::Failed);
    assert_eq!(outcomes(&disk), [forced.clone()].into(), "it is given up");
    sync(&mut disk, &path, Outcome::Done);
    assert_eq!(outcomes(&disk), [forced.clone()].into(), "and stays so");
    disk.apply(&written(0, 3));
    sync(&mut disk, &path, Outcome::Done);
    assert_eq!(outcomes(&disk), [Some(vec![3; 1024])].into());
    disk.apply(&Step::Removed(path.clone()));
    assert_eq!(outcomes(&disk), [None, Some(vec![3; 1024])].into());
}
