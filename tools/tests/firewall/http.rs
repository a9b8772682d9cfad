//! HTTP through a port that is allowed, and not through one where something listens as well.

use crate::clients::{Http, PAGE, curl};
use crate::lab::{INSTANCE, INSTANCE_V6, Lab, Rules, can_run};

/// One port is open, in both families; `args` are those of `sgwall run`.
fn one_port_is_open(label: &str, args: &[&str]) {
    let rules = Rules {
        ingress: r#"
  { protocol = "tcp", ports = 80, cidr = "203.0.113.0/24" },
  { protocol = "tcp", ports = 80, cidr = "2001:db8:9::/48" },"#,
        egress: "",
        ..Rules::NEW
    };
    let lab = Lab::new(label, &rules, args);
    let _open = Http::serve(&lab.instance, "[::]:80");
    let _closed = Http::serve(&lab.instance, "[::]:8080");
    let page = Ok(format!("{PAGE}\n200"));
    for host in [INSTANCE.to_owned(), format!("[{INSTANCE_V6}]")] {
        // Several connections, so that several queues see some.
        for _ in 0..4 {
            assert_eq!(curl(&lab.world, &format!("http://{host}/"), "10"), page);
        }
        // The page is there for the instance itself; 28: curl's time is over.
        let other = format!("http://{host}:8080/");
        assert_eq!(curl(&lab.instance, &other, "10"), page);
        assert_eq!(curl(&lab.world, &other, "1"), Err(Some(28)));
    }
    assert!(lab.firewall.dropped("no-rule") >= 2);
    assert_eq!(lab.firewall.flows(&["dport=80"]).len(), 8);
    assert_eq!(lab.firewall.flows(&["dport=8080"]).len(), 0);
}

#[test]
fn http_comes_through_an_allowed_port_only() {
    if can_run("http_comes_through_an_allowed_port_only", &["curl"]) {
        one_port_is_open("http", &[]);
    }
}

#[test]
fn http_with_two_workers() {
    if can_run("http_with_two_workers", &["curl"]) {
        one_port_is_open("http2", &["--workers", "2"]);
    }
}

#[test]
fn http_without_offload() {
    if can_run("http_without_offload", &["curl"]) {
        one_port_is_open("httpno", &["--no-offload"]);
    }
}
