//! Which files a firewall may still reach, by Landlock.
//!
//! Whatever is not named is out of reach, whoever the process runs as; and so are TCP, abstract
//! sockets and signals to others, where the kernel knows how. What is open stays open. A directory is
//! known by itself and not by its name: one that takes its place is not the one that was allowed.
//!
//! <https://docs.kernel.org/userspace-api/landlock.html>

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, PathFdError,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::SandboxError;

/// The newest that we know: what an older kernel has no word for is left out.
const NEWEST: ABI = ABI::V7;

/// What stays in reach: directories with all that is in them, or single files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// To read.
    pub read: Vec<PathBuf>,
    /// To append to files, to make and to rename them.
    pub write: Vec<PathBuf>,
    /// To remove files from.
    pub remove: Vec<PathBuf>,
}

impl Files {
    /// Adds what it takes to read `path` again, whatever becomes of it: a directory itself, of a file
    /// its directory, since a file is replaced there. A symbolic link may be set anew, too.
    pub fn read_again(&mut self, path: &Path) {
        self.read.push(around(path));
        if let Ok(target) = path.canonicalize() {
            self.read.push(around(&target));
        }
    }

    /// Adds what it takes to append to `path`, to rename it and to begin it anew. Of what is no
    /// plain file, such as `/dev/null`, itself alone.
    pub fn append(&mut self, path: &Path) {
        match path.metadata() {
            Ok(metadata) if !metadata.is_file() => self.write.push(path.to_owned()),
            _ => self.write.push(parent(path)),
        }
    }

    /// Adds what it takes to remove `path`.
    pub fn remove(&mut self, path: &Path) {
        self.remove.push(parent(path));
    }
}

/// A directory itself, of anything else its directory.
fn around(path: &Path) -> PathBuf {
    if path.is_dir() { path.to_owned() } else { parent(path) }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Takes all files away but those; Landlock's ABI, or why there is none.
pub(crate) fn restrict(files: &Files) -> Result<Result<i32, String>, SandboxError> {
    let refused =
        |error: RulesetError| SandboxError::refused("restrict which files can be reached", error);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Renaming within a directory takes a name away and makes one.
    let write = AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(refused)?;
    for (paths, rights) in [
        (&files.read, read),
        (&files.write, write),
        (&files.remove, BitFlags::from(AccessFs::RemoveFile)),
    ] {
        for path in paths {
            rules = allow(rules, path, rights)?;
        }
    }
    let status = rules.restrict_self().map_err(refused)?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("this kernel was started without Landlock (lsm=landlock)".to_owned())
        }
        (RulesetStatus::NotEnforced, _) => {
            Err("this kernel has no Landlock (Linux 5.13)".to_owned())
        }
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok(effective_abi as i32),
        (_, status) => Err(format!("Landlock says {status:?}")),
    })
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    let failed = |why: String| SandboxError::Path { path: path.to_owned(), why };
    let opened = PathFd::new(path).map_err(|error| match error {
        PathFdError::OpenCall { source, .. } => failed(source.to_string()),
        other => failed(other.to_string()),
    })?;
    // A single file has no right that only directories have.
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(NEWEST) };
    rules.add_rule(PathBeneath::new(opened, rights)).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_reached_by_its_directory_and_a_device_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("policy.toml"), dir.path().join("link"));
        std::fs::write(&file, "").expect("written");
        std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
        let mut files = Files::default();
        files.read_again(&file);
        files.read_again(dir.path());
        files.read_again(&link);
        let here = dir.path().to_owned();
        let real = here.canonicalize().expect("its name");
        assert_eq!(
            files.read,
            [&here, &real, &here, &real, &here, Path::new("/dev")].map(Path::to_owned)
        );
        files.append(&here.join("flow.log"));
        files.append(Path::new("flow.log"));
        files.append(Path::new("/dev/full"));
        assert_eq!(
            files.write,
            [&here, Path::new("."), Path::new("/dev/full")].map(Path::to_owned)
        );
        files.remove(Path::new("/run/sgwall.sock"));
        assert_eq!(files.remove, [Path::new("/run")]);
    }
}
