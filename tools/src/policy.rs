//! Policies from files: reading them, reporting on them, compiling them.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::{Diagnostic, Origin};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Policy;

use crate::failure::{Coloured, Failure};

/// The largest policy file, bytes: some hundred thousand rules. A larger one is something else.
const MAX_FILE: u64 = 64 << 20;

/// A policy file: its name for messages, and its bytes.
pub(crate) type NamedBytes = (String, Vec<u8>);

/// A policy as it was written, and made ready for packets.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) model: Arc<Policy>,
    pub(crate) compiled: Arc<CompiledPolicy>,
}

impl Loaded {
    /// Reads, validates and compiles; see [`load_model`].
    pub(crate) fn load(paths: &[PathBuf], generation: Generation) -> Result<Self, Failure> {
        let model = load_model(&read(paths)?)?;
        let compiled = Arc::new(CompiledPolicy::compile(&model, generation));
        Ok(Loaded { model, compiled })
    }
}

/// Reads policy files; of a directory, its `.toml` and `.json` files in order of their names.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<NamedBytes>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            for entry in policies_in(path)? {
                files.push(read_one(&entry)?);
            }
            if files.len() == before {
                return Err(Failure::Usage(format!(
                    "{}: the directory holds no .toml or .json file; name the policy files themselves",
                    path.display()
                )));
            }
        } else {
            files.push(read_one(path)?);
        }
    }
    Ok(files)
}

/// Loads, validates and compiles; warnings and notes go to standard error.
///
/// # Errors
/// Every error of the policy at once.
pub(crate) fn compile(
    files: &[NamedBytes],
    generation: Generation,
) -> Result<Arc<CompiledPolicy>, Failure> {
    Ok(Arc::new(CompiledPolicy::compile(&*load_model(files)?, generation)))
}

/// The same, of a policy that takes over from another, in as far as it differs.
///
/// # Errors
/// Every error of the policy at once.
pub(crate) fn recompile(
    before: &CompiledPolicy,
    files: &[NamedBytes],
    generation: Generation,
) -> Result<Arc<CompiledPolicy>, Failure> {
    Ok(Arc::new(before.recompile(&*load_model(files)?, generation)))
}

/// Loads and validates; warnings and notes go to standard error.
///
/// # Errors
/// Every error of the policy at once.
pub(crate) fn load_model(files: &[NamedBytes]) -> Result<Arc<Policy>, Failure> {
    let loaded = load(&inputs(files)).map_err(Failure::Policy)?;
    for diagnostic in &loaded.diagnostics {
        anstream::eprintln!("{}", Coloured(diagnostic));
    }
    Ok(Arc::new(loaded.policy))
}

/// Files as the loader takes them.
pub(crate) fn inputs(files: &[NamedBytes]) -> Vec<Input<'_>> {
    files.iter().map(|(name, bytes)| Input { name: name.clone(), bytes }).collect()
}

/// Warnings of what others than its owner and root could change: policy files, and directories in
/// which one could be replaced.
pub(crate) fn writable_by_others(paths: &[PathBuf]) -> Vec<Diagnostic> {
    let mut places = Vec::new();
    for path in paths {
        places.push(path.clone());
        match path.is_dir() {
            true => places.extend(policies_in(path).unwrap_or_default()),
            false => places.push(directory_of(path)),
        }
    }
    places.sort();
    places.dedup();
    let metadata = |path: PathBuf| path.metadata().ok().map(|metadata| (path, metadata));
    places.into_iter().filter_map(metadata).flat_map(|(path, of)| warnings(&path, &of)).collect()
}

fn warnings(path: &Path, of: &Metadata) -> Vec<Diagnostic> {
    let origin = Origin::synthetic(&path.display().to_string());
    let quoted = path.display();
    let what = if of.is_dir() { "directory" } else { "file" };
    let mut warnings = Vec::new();
    // In a sticky directory such as /tmp, others' files cannot be replaced.
    if of.mode() & 0o022 != 0 && !(of.is_dir() && of.mode() & 0o1000 != 0) {
        let message = format!(
            "the {what} has mode {:04o}: others than its owner can change the policy",
            of.mode() & 0o7777
        );
        let mend = format!("chmod go-w {quoted}");
        warnings.push(Diagnostic::warning("writable-by-others", &origin, message, mend));
    }
    let own = rustix::process::geteuid().as_raw();
    if of.uid() != 0 && of.uid() != own {
        let message = format!(
            "the {what} belongs to user {}, who can change the policy; this is user {own}",
            of.uid()
        );
        let mend = format!("chown root {quoted}");
        warnings.push(Diagnostic::warning("owned-by-another", &origin, message, mend));
    }
    warnings
}

fn read_one(path: &Path) -> Result<NamedBytes, Failure> {
    let failed = |e| unreadable(path, &e);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // What is no plain file does not say its size.
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 > MAX_FILE {
        return Err(Failure::Usage(format!(
            "{}: it has more than {} MiB, which no policy has; name another file, or divide it",
            path.display(),
            MAX_FILE >> 20
        )));
    }
    Ok((path.display().to_string(), bytes))
}

/// The policy files of a directory, in order of their names.
fn policies_in(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = sorted_entries(dir)?;
    paths.retain(|path| {
        path.extension().is_some_and(|e| e == "toml" || e == "json") && path.is_file()
    });
    Ok(paths)
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sorted_entries(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(dir).map_err(|e| unreadable(dir, &e))?;
    let mut paths = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unreadable(dir, &e))?;
    paths.sort();
    Ok(paths)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Io(format!("cannot read {}: {error}", path.display()))
}
