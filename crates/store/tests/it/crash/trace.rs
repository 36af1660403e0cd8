//! What `strace` wrote down, as what happened to the disk and what was said, in that order.
//!
//! A write counts from the moment it is begun, a word from the moment it is spoken, and a sync when
//! it has ended, for what was written before it began. So no promise is believed before it was made,
//! and nothing that may have happened is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::crash::event::Event;

/// The calls that are written down: all that change a file or a directory.
pub(super) const CALLS: &str = "openat,open,creat,pwrite64,pwritev,pwritev2,write,writev,lseek,\
    truncate,ftruncate,fallocate,fsync,fdatasync,sync_file_range,msync,mmap,unlink,unlinkat,rename,\
    renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir,copy_file_range,sendfile";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Made, if it was not there.
    Opened {
        path: PathBuf,
        mode: Mode,
    },
    Written {
        path: PathBuf,
        at: Where,
        bytes: Vec<u8>,
    },
    /// The file is as long as this now.
    Resized {
        path: PathBuf,
        length: usize,
    },
    /// The file is at least as long as this now.
    Extended {
        path: PathBuf,
        length: usize,
    },
    Removed(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    SyncBegun {
        path: PathBuf,
        number: usize,
    },
    SyncEnded {
        number: usize,
        outcome: Outcome,
    },
    Said(Event),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Keep,
    Truncate,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Offset(usize),
    End,
}

/// What came of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
}

/// Reads a trace; of files, only what happened in that directory.
pub(super) fn read(text: &str, directory: &Path) -> Vec<Step> {
    let (results, mut ends) = results(text);
    let mut reader =
        Reader { directory, steps: Vec::new(), offsets: BTreeMap::new(), words: Vec::new() };
    for (index, line) in text.lines().enumerate() {
        let rest = after_thread(line);
        if !rest.starts_with(['<', '+', '-'])
            && let Some((name, arguments)) = rest.split_once('(')
        {
            let arguments = arguments.split(" <unfinished").next().unwrap_or(arguments);
            let arguments = arguments.rsplit_once(") ").map_or(arguments, |it| it.0);
            let arguments: Vec<_> = arguments.trim_end_matches(')').split(", ").collect();
            let result = results.get(&index).copied();
            reader.call(index, &Call { name, arguments, result });
        }
        if let Some((number, outcome)) = ends.remove(&index) {
            reader.steps.push(Step::SyncEnded { number, outcome });
        }
    }
    reader.steps
}

fn after_thread(line: &str) -> &str {
    line.split_once(' ').map_or("", |it| it.1.trim_start())
}

type Results = BTreeMap<usize, i64>;
type Ends = BTreeMap<usize, (usize, Outcome)>;

/// What each call returned, by the line on which it began; and of each sync the line on which it
/// ended.
fn results(text: &str) -> (Results, Ends) {
    let (mut results, mut ends, mut begun) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (index, line) in text.lines().enumerate() {
        let thread = line.split(' ').next().unwrap_or_default();
        let rest = after_thread(line);
        if rest.ends_with("<unfinished ...>") {
            begun.insert(thread, index);
            continue;
        }
        let start = if rest.starts_with("<... ") { begun.remove(thread) } else { Some(index) };
        let Some((_, result)) = rest.rsplit_once(" = ") else { continue };
        let digits = result.split(|it: char| !it.is_ascii_digit() && it != '-').next();
        let (Some(start), Some(result)) = (start, digits.and_then(|it| it.parse().ok())) else {
            continue;
        };
        results.insert(start, result);
        if rest.contains("sync") {
            let outcome = if result == 0 { Outcome::Done } else { Outcome::Failed };
            ends.insert(index, (start, outcome));
        }
    }
    (results, ends)
}

/// A call that has begun.
struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    /// What it returned; nothing if it never did.
    result: Option<i64>,
}

impl Call<'_> {
    fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).copied().unwrap_or_default()
    }

    fn number(&self, index: usize) -> usize {
        self.argument(index).parse().unwrap()
    }

    /// The string at that place.
    fn text(&self, index: usize) -> Vec<u8> {
        self.argument(index).split('"').nth(1).map(bytes).unwrap_or_default()
    }

    fn name_at(&self, index: usize) -> PathBuf {
        path(self.text(index))
    }

    /// The path behind the descriptor at that place.
    fn described(&self, index: usize) -> PathBuf {
        let path_of = |it: &str| it.split_once('<').map(|it| path(bytes(it.1)));
        path_of(self.argument(index)).unwrap_or_default()
    }

    fn descriptor(&self) -> String {
        self.argument(0).split('<').next().unwrap_or_default().to_owned()
    }

    /// What was written of what was to be written.
    fn written(&self) -> Vec<u8> {
        let mut written = self.text(1);
        if let Some(length) = self.result {
            written.truncate(length.try_into().unwrap());
        }
        written
    }
}

/// `strace -xx` writes each byte as `\x2a`.
fn bytes(text: &str) -> Vec<u8> {
    let digit = |it: u8| char::from(it).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let byte = |it: &[u8]| match it {
        [b'\\', b'x', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(4).map_while(byte).collect()
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes).unwrap())
}

struct Reader<'a> {
    directory: &'a Path,
    steps: Vec<Step>,
    /// Where the next plain write of a descriptor goes.
    offsets: BTreeMap<String, Where>,
    /// What was said and is no whole line yet.
    words: Vec<u8>,
}

impl Reader<'_> {
    fn call(&mut self, line: usize, call: &Call<'_>) {
        if call.name == "write" && call.descriptor() == "1" {
            self.say(&call.written());
            return;
        }
        let is_sync = matches!(call.name, "fsync" | "fdatasync");
        if !self.concerns_us(call) || (!is_sync && call.result.is_some_and(|it| it < 0)) {
            return;
        }
        let path = call.described(0);
        match call.name {
            "openat" => self.open(call),
            "pwrite64" => {
                let at = Where::Offset(call.number(3));
                self.steps.push(Step::Written { path, at, bytes: call.written() });
            }
            "write" => {
                let bytes = call.written();
                let at = self.offsets.entry(call.descriptor()).or_insert(Where::Offset(0));
                self.steps.push(Step::Written { path, at: *at, bytes: bytes.clone() });
                if let Where::Offset(offset) = at {
                    *offset += bytes.len();
                }
            }
            "lseek" => {
                let offset = usize::try_from(call.result.unwrap_or_default()).unwrap();
                self.offsets.insert(call.descriptor(), Where::Offset(offset));
            }
            "ftruncate" => self.steps.push(Step::Resized { path, length: call.number(1) }),
            "fallocate" if call.argument(1) == "0" => {
                let length = call.number(2) + call.number(3);
                self.steps.push(Step::Extended { path, length });
            }
            "fsync" | "fdatasync" => self.steps.push(Step::SyncBegun { path, number: line }),
            "unlink" => self.steps.push(Step::Removed(call.name_at(0))),
            "rename" => {
                let (from, to) = (call.name_at(0), call.name_at(1));
                self.steps.push(Step::Renamed { from, to });
            }
            // The index of the log lies in shared memory, and dies with its process.
            "mmap" if call.described(4).to_string_lossy().ends_with("-shm") => {}
            "mmap" if !call.argument(2).contains("PROT_WRITE") => {}
            "mmap" if call.argument(3).contains("MAP_PRIVATE") => {}
            name => panic!("this disk does not know `{name}`: teach it ({:?})", call.arguments),
        }
    }

    fn open(&mut self, call: &Call<'_>) {
        let flags = call.argument(2);
        let path = call.name_at(1);
        if let Some(descriptor) = call.result {
            let append = flags.contains("O_APPEND");
            let start = if append { Where::End } else { Where::Offset(0) };
            self.offsets.insert(descriptor.to_string(), start);
        }
        let mode = if flags.contains("O_TRUNC") { Mode::Truncate } else { Mode::Keep };
        if flags.contains("O_CREAT") || mode == Mode::Truncate {
            self.steps.push(Step::Opened { path, mode });
        }
    }

    fn concerns_us(&self, call: &Call<'_>) -> bool {
        let is_ours = |it: PathBuf| it.starts_with(self.directory);
        (0..call.arguments.len()).any(|it| is_ours(call.name_at(it)) || is_ours(call.described(it)))
    }

    fn say(&mut self, words: &[u8]) {
        self.words.extend_from_slice(words);
        while let Some(end) = self.words.iter().position(|it| *it == b'\n') {
            let line: Vec<u8> = self.words.drain(..=end).collect();
            let event = String::from_utf8_lossy(&line).trim_end().parse();
            self.steps.extend(event.ok().map(Step::Said));
        }
    }
}

#[test]
fn a_trace_is_read_in_its_order() {
    // /d/f, "ab", "ack: 1 held\n"
    let text = r#"7  openat(AT_FDCWD<\x2f>, "\x2f\x64\x2f\x66", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5<\x2f\x64\x2f\x66>
7  pwrite64(5<\x2f\x64\x2f\x66>, "\x61\x62", 2, 512 <unfinished ...>
8  write(1<\x70>, "\x61\x63\x6b\x3a\x20\x31\x20\x68\x65\x6c\x64\x0a", 12 <unfinished ...>
7  <... pwrite64 resumed>) = 1
8  <... write resumed>) = 12
7  fsync(5<\x2f\x64\x2f\x66> <unfinished ...>
8  openat(AT_FDCWD<\x2f>, "\x2f\x65", O_RDWR|O_CREAT, 0600) = 6<\x2f\x65>
7  <... fsync resumed>) = 0
7  write(5<\x2f\x64\x2f\x66>, "\x63", 1) = 1
7  fdatasync(5<\x2f\x64\x2f\x66>) = -1 EIO (Input/output error) (INJECTED)
7  unlink("\x2f\x64\x2f\x66") = 0
7  +++ exited with 0 +++
"#;
    let path = || PathBuf::from("/d/f");
    let steps = [
        Step::Opened { path: path(), mode: Mode::Keep },
        Step::Written { path: path(), at: Where::Offset(512), bytes: b"a".to_vec() },
        Step::Said("ack: 1 held".parse().unwrap()),
        Step::SyncBegun { path: path(), number: 5 },
        Step::SyncEnded { number: 5, outcome: Outcome::Done },
        Step::Written { path: path(), at: Where::Offset(0), bytes: b"c".to_vec() },
        Step::SyncBegun { path: path(), number: 9 },
        Step::SyncEnded { number: 9, outcome: Outcome::Failed },
        Step::Removed(path()),
    ];
    assert_eq!(read(text, Path::new("/d")), steps);
}
