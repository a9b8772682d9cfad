//! SARIF 2.1.0, the form in which code hosts take findings (OASIS, "Static Analysis Results
//! Interchange Format").

use serde_json::{Value, json};

/// A kind of finding.
pub(crate) struct Rule {
    /// Its stable code.
    pub(crate) id: &'static str,
    /// In a sentence.
    pub(crate) description: &'static str,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warning,
    Note,
}

/// One finding.
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) level: Level,
    pub(crate) message: String,
    /// The file as it was named, and the line from 1, if known.
    pub(crate) place: Option<(String, Option<usize>)>,
}

/// A whole log, of one run.
pub(crate) fn log(rules: &[Rule], findings: &[Finding]) -> Value {
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| json!({ "id": rule.id, "shortDescription": { "text": rule.description } }))
        .collect();
    let results: Vec<_> = findings.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "sgwall",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "results": results,
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let level = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    };
    let mut result = json!({
        "ruleId": finding.rule,
        "level": level,
        "message": { "text": finding.message },
    });
    if let Some((file, line)) = &finding.place {
        let mut location = json!({ "artifactLocation": { "uri": file } });
        if let Some(line) = line {
            location["region"] = json!({ "startLine": line });
        }
        result["locations"] = json!([{ "physicalLocation": location }]);
    }
    result
}
