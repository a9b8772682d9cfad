//! `sgwall bench` in memory as a user runs it: what is measured, and what is said of it. That packets
//! fare as they should is looked at by the measured work itself, in every run.

mod common;

use common::sgwall;
use serde_json::Value;

fn bench(args: &[&str]) -> Value {
    let run = sgwall(&[&["bench"], args, &["--seconds", "0.01", "--json"]].concat());
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
}

/// The names of what was measured, each of which came to something.
fn measured(object: &Value) -> Vec<&str> {
    let results = object["results"].as_array().unwrap();
    results.iter().map(checked_name).collect()
}

fn checked_name(result: &Value) -> &str {
    let number = |name: &str| result[name].as_f64().unwrap();
    let parts = ["fastest_ns", "p50_ns", "p90_ns", "p99_ns"].map(number);
    assert!(parts[0] > 0.0 && parts.is_sorted(), "{result}");
    assert!(number("runs") >= 20.0 && number("operations") >= number("runs"), "{result}");
    assert!(number("per_second") > 0.0, "{result}");
    result["name"].as_str().unwrap()
}

#[test]
fn pipeline() {
    let with = ["--flows", "5000", "--rules", "20", "--workers", "2", "--length", "imix"];
    let object = bench(&[&["pipeline"], &with[..]].concat());
    assert_eq!(measured(&object), ["established", "new", "untracked", "refused"]);
    assert_eq!((&object["workers"], &object["length"]), (&2.into(), &"imix".into()));

    let object = bench(&["pipeline", "--flows", "100", "--packets", "refused,new"]);
    assert_eq!(measured(&object), ["refused", "new"]);
}

#[test]
fn classifier_of_made_up_rules() {
    for family in [&[][..], &["--ipv6"]] {
        let object = bench(&[&["classifier", "--rules", "50"], family].concat());
        let names = measured(&object);
        assert_eq!(names.len(), 12, "{names:?}");
        assert_eq!((names[0], names[11]), ("hit-few-one", "miss-cold-batch"));
        assert_eq!(object["rules"], 50);
    }
}

#[test]
fn classifier_of_a_policy() {
    let policy = ["classifier", "--policy", "tools/tests/explain/policy.toml"];
    let run = sgwall(&[&["bench"], &policy[..]].concat());
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("name one with --interface, of eni-"), "{}", run.stderr);

    let object = bench(&[&policy[..], &["--interface", "eni-web"]].concat());
    assert!(measured(&object).contains(&"hit-many-batch"));
    assert_eq!(object["interface"], "eni-web");
}

#[test]
fn table() {
    let object = bench(&["table", "--flows", "20000"]);
    let names = measured(&object);
    let expected =
        ["established-uniform-one", "established-zipf-batch", "insert", "expire", "mixed"];
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
    assert!(object["resident_bytes_a_flow"].as_f64().unwrap() > 40.0, "{object}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (args, expected) in [
        (&["pipeline", "--length", "63"][..], "64 to 9018, or imix"),
        (&["pipeline", "--flows", "10000000", "--length", "1518"], "more than 4 GiB"),
        (&["table", "--seconds", "0"], "0.01 to 86400 seconds"),
        (&["soak", "--seconds", "9"], "not in 10..="),
        (&["classifier", "--interface", "eni-1"], "--policy"),
    ] {
        let run = sgwall(&[&["bench"], args].concat());
        assert_eq!(run.status, 2, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{args:?}: {}", run.stderr);
    }
}
