//! Policies from TOML and from AWS's JSON: whatever the files, an answer that helps, and what is
//! taken can be used.

use sgwall_rules::compile::{CompiledPolicy, Generation};
use sgwall_rules::diagnostic::Severity;
use sgwall_rules::load::{Input, check, load};

/// Loads a policy of one file or several, with a zero byte between them.
pub fn policy(data: &[u8]) {
    let inputs: Vec<_> = (0..)
        .zip(data.split(|byte| *byte == 0))
        .map(|(n, bytes): (u32, _)| Input { name: format!("file-{n}"), bytes })
        .collect();
    match load(&inputs) {
        Err(found) => {
            assert!(
                found.iter().any(|d| d.severity == Severity::Error),
                "refused without an error"
            );
            for d in &found {
                assert!(!d.message.is_empty() && !d.code.is_empty(), "{d:?}");
                assert!(d.severity != Severity::Error || !d.mend.is_empty(), "no mend: {d}");
                let _ = d.to_string();
            }
        }
        Ok(loaded) => {
            assert!(loaded.diagnostics.iter().all(|d| d.severity != Severity::Error));
            let errors: Vec<_> = check(&loaded.policy)
                .into_iter()
                .filter(|d| d.severity == Severity::Error)
                .map(|d| d.to_string())
                .collect();
            assert!(errors.is_empty(), "taken, and refused when checked again: {errors:?}");
            let compiled = CompiledPolicy::compile(&loaded.policy, Generation(1));
            let again = compiled.recompile(&loaded.policy, Generation(2));
            let enis = loaded.policy.interfaces.len() + loaded.policy.classic_instances.len();
            assert_eq!(compiled.interfaces().len(), enis);
            assert_eq!(compiled.rules(), again.rules());
            assert_eq!(format!("{:?}", compiled.interfaces()), format!("{:?}", again.interfaces()));
        }
    }
}
