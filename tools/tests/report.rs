//! `sgwall replay --report`: the page, its data, and what a browser makes of it.
//!
//! The browser is Chromium. Where there is none the test says so and passes, unless
//! `SGWALL_BROWSER=required`.

// Tests of the command line read files.
#![allow(clippy::disallowed_methods)]

mod common;

use std::path::Path;
use std::process::Command;

use common::sgwall;
use serde_json::Value;

fn report(more: &[&str]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    let run = sgwall(&[&["replay", "--report", path.to_str().unwrap()], more].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
    let page = std::fs::read_to_string(&path).unwrap();
    (dir, page)
}

fn data(page: &str) -> Value {
    let begin = page.find("type=\"application/json\">").unwrap() + 24;
    let end = begin + page[begin..].find("</script>").unwrap();
    serde_json::from_str(&page[begin..end]).unwrap()
}

#[test]
fn the_page_holds_what_the_summary_says_and_needs_no_network() {
    let (_dir, page) = report(&[]);
    for outside in ["src=", "href=", "@import", "url(", "fetch(", "https://"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let data = data(&page);
    let summary: Value =
        serde_json::from_str(sgwall(&["replay", "--json"]).stdout.lines().last().unwrap()).unwrap();
    let sum = |rows: &Value, verdict: &str| -> u64 {
        let rows = rows.as_array().unwrap().iter();
        rows.filter(|row| row["verdict"] == verdict)
            .map(|row| row["packets"].as_u64().unwrap())
            .sum()
    };
    for (which, verdict) in ["pass", "drop", "skip"].into_iter().enumerate() {
        let packets = summary["frames"][verdict]["packets"].as_u64().unwrap();
        assert_eq!(sum(&data["reasons"], verdict), packets, "{verdict}");
        let columns = data["columns"].as_array().unwrap().iter();
        assert_eq!(columns.map(|c| c[which].as_u64().unwrap()).sum::<u64>(), packets, "{verdict}");
    }
    for rule in summary["rules"].as_array().unwrap() {
        let same =
            |row: &&Value| row["rule"] == rule["rule"] && row["direction"] == rule["direction"];
        let row = data["rules"].as_array().unwrap().iter().find(same).unwrap();
        assert_eq!(row["packets"], rule["packets"]);
    }
}

#[test]
fn several_workers_make_the_same_page() {
    let args = ["tools/example/capture.pcapng", "--policy", "tools/example/policy.toml"];
    let (_one, alone) = report(&[&args[..], &["--workers", "1"]].concat());
    let (_three, together) = report(&[&args[..], &["--workers", "3"]].concat());
    assert_eq!(alone, together);
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_at_once() {
    let run = sgwall(&["replay", "--report", "/dev/null/report.html"]);
    assert!(run.status == 3 && run.stderr.contains("/dev/null/report.html"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

/// The page after its script has run.
fn rendered(page: &Path, fragment: &str) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", &format!("file://{}{fragment}", page.display())])
        .output();
    match output {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            let is_required = std::env::var("SGWALL_BROWSER").is_ok_and(|word| word == "required");
            assert!(!is_required, "chromium: {error}");
            eprintln!("NOT RUN: a browser on the report: chromium: {error}");
            None
        }
    }
}

#[test]
fn a_browser_shows_it() {
    let (dir, _) = report(&[]);
    let path = dir.path().join("report.html");
    let Some(page) = rendered(&path, "") else { return };
    for expected in [
        ">16</b>",
        "16 of 16 flows",
        "<code>tcp 198.51.100.66:61000 -&gt; 10.0.1.10:22</code>",
        "<td class=\"drop\">drop</td>",
        "an entry of the subnet's network ACL denies it",
        "<rect class=\"drop\"",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let filtered = rendered(&path, "#filter=drop%20acl-deny").unwrap();
    assert!(filtered.contains("1 of 16 flows"), "{filtered}");
}
