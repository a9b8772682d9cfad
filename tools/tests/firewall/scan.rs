//! What a port scanner finds: the allowed ports, and nothing of the others.

use std::sync::atomic::{AtomicBool, Ordering};

use sgwall_netio::netns::Scratch;

use crate::clients::{Http, receive, run, udp};
use crate::lab::{INSTANCE, INSTANCE_V6, Lab, Rules, can_run, text};

/// Scans, and what nmap says of each port: `80/open/tcp`.
fn scan(from: &Scratch, words: &str) -> Vec<String> {
    let output = run(from, &format!("nmap -n -Pn -T4 --max-retries 1 -oG - {words}"));
    let (found, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let ports = found.split_once("Ports: ").expect(&found).1;
    let ports = ports.lines().next().unwrap_or_default().split(['\t', ',']);
    let first = |port: &str| port.trim().split('/').take(3).collect::<Vec<_>>().join("/");
    ports.filter(|port| port.contains("/tcp/") || port.contains("/udp/")).map(first).collect()
}

#[test]
fn a_scan_shows_the_allowed_ports() {
    if !can_run("a_scan_shows_the_allowed_ports", &["nmap"]) {
        return;
    }
    let rules = Rules {
        ingress: r#"
  { protocol = "tcp", ports = "80-81", cidr = "0.0.0.0/0" },
  { protocol = "tcp", ports = 443, cidr = "203.0.113.0/24" },
  { protocol = "tcp", ports = 80, cidr = "2001:db8:9::/48" },
  { protocol = "udp", ports = "53-54", cidr = "203.0.113.0/24" },"#,
        ..Rules::NEW
    };
    let lab = Lab::new("scan", &rules, &[]);
    // Something listens on every port but 81 and 54.
    let ports = [22, 80, 443, 8080];
    let _servers = ports.map(|port| Http::serve(&lab.instance, &format!("[::]:{port}")));
    let tcp = scan(&lab.world, &format!("-sS -p 22,80,81,443,8080 {INSTANCE}"));
    let expected =
        ["22/filtered/tcp", "80/open/tcp", "81/closed/tcp", "443/open/tcp", "8080/filtered/tcp"];
    assert_eq!(tcp, expected);
    let v6 = scan(&lab.world, &format!("-6 -sS -p 22,80,443 {INSTANCE_V6}"));
    assert_eq!(v6, ["22/filtered/tcp", "80/open/tcp", "443/filtered/tcp"]);

    let sockets = [53, 123].map(|port| udp(&lab.instance, &format!("{INSTANCE}:{port}")));
    let stop = AtomicBool::new(false);
    let udp = std::thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    if let Some((bytes, from)) = receive(socket) {
                        socket.send_to(&bytes, from).expect("sent");
                    }
                }
            });
        }
        let found = scan(&lab.world, &format!("-sU -p 53,54,123 {INSTANCE}"));
        stop.store(true, Ordering::Release);
        found
    });
    // Where nobody listens the instance says so, which it may; 123 is not let in.
    assert_eq!(udp, ["53/open/udp", "54/closed/udp", "123/open|filtered/udp"]);
}
