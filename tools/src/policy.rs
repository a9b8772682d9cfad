//! Policies from files: reading them, reporting on them, compiling them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::load::{Input, load};
use sgwall_rules::model::Policy;

use crate::failure::{Coloured, Failure};

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
            for entry in sorted_entries(path)? {
                let is_policy = entry.extension().is_some_and(|e| e == "toml" || e == "json")
                    && entry.is_file();
                if is_policy {
                    files.push(read_one(&entry)?);
                }
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

fn read_one(path: &Path) -> Result<NamedBytes, Failure> {
    let bytes = fs::read(path).map_err(|e| unreadable(path, &e))?;
    Ok((path.display().to_string(), bytes))
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
