//! Running the real binary at the top of the repository.

// Each test file compiles this module, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run left behind.
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    pub status: i32,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub fn sgwall(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_sgwall"))
        .args(args)
        .current_dir(root())
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap();
    Run {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap(),
    }
}
