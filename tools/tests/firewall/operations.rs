//! A firewall at work: how it ends, what it may do, and who may ask it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::process::Signal;

use crate::clients::{is_silent, reach};
use crate::lab::{INSTANCE, Lab, PATIENCE, Rules, WORLD, can_run, text};
use crate::stream::Stream;

const WITH_HTTP: Rules<'static> =
    Rules { ingress: r#"{ protocol = "tcp", ports = 80, cidr = "0.0.0.0/0" }"#, ..Rules::NEW };

#[test]
fn told_to_end_it_ends_well_and_nothing_passes() {
    if !can_run("told_to_end_it_ends_well_and_nothing_passes", &[]) {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let mut lab = Lab::new("end", &WITH_HTTP, &["--workers", "2"]);
        let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
        reach(&lab.instance, WORLD, "");
        stream.goes_on();
        lab.firewall.signal(signal);
        assert_eq!(lab.firewall.wait().code(), Some(0), "{}", lab.firewall.log());
        stream.is_cut();
        assert!(is_silent(&lab.instance, WORLD, ""));
        assert!(lab.firewall.log().contains("the firewall has ended; nothing passes"));
        assert!(!lab.firewall.control().exists());
        let output = lab.firewall.try_ask(&["stats"]);
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output.stderr).contains("is the firewall running?"));
    }
}

#[test]
fn a_device_that_goes_ends_it_with_a_name() {
    if !can_run("a_device_that_goes_ends_it_with_a_name", &[]) {
        return;
    }
    for workers in ["1", "2"] {
        for device in ["tap-i", "tap-n"] {
            let mut lab = Lab::new("gone", &WITH_HTTP, &["--workers", workers]);
            reach(&lab.instance, WORLD, "");
            let host = if device == "tap-i" { &lab.instance } else { &lab.world };
            host.ip(&format!("link del {device}")).expect("a TAP of ours");
            assert_eq!(lab.firewall.wait().code(), Some(1));
            let log = lab.firewall.log();
            assert!(log.contains(&format!("interface {device} is gone")), "{log}");
            assert!(log.contains("the firewall failed, and nothing passes"), "{log}");
            assert!(!lab.firewall.control().exists());
        }
    }
}

#[test]
fn a_device_that_is_down_for_a_while_is_no_end() {
    if !can_run("a_device_that_is_down_for_a_while_is_no_end", &[]) {
        return;
    }
    let lab = Lab::new("down", &WITH_HTTP, &[]);
    let stream = Stream::start(&lab.world, &lab.instance, INSTANCE, 80);
    stream.goes_on();
    lab.instance.ip("link set tap-i down").expect("a TAP of ours");
    stream.is_cut();
    lab.instance.ip("link set tap-i up").expect("a TAP of ours");
    // The kernel has forgotten it.
    lab.instance.ip("route add default via 10.0.1.1").expect("the route is gone");
    stream.goes_on();
}

/// Or kept, where that is asked for; which rights are gone otherwise, `rights.rs` says.
#[test]
fn its_privileges_are_gone_once_it_runs() {
    if !can_run("its_privileges_are_gone_once_it_runs", &[]) {
        return;
    }
    for keep in [false, true] {
        let args: &[&str] = if keep { &["--keep-privileges"] } else { &[] };
        let lab = Lab::new("caps", &Rules::NEW, &[&["--workers", "2"], args].concat());
        let tasks = format!("/proc/{}/task", lab.firewall.pid());
        let mut threads = 0;
        for task in fs::read_dir(tasks).expect("its threads") {
            let path = task.expect("a thread").path().join("status");
            let status = fs::read_to_string(path).expect("its status");
            let has = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                let mask = line.expect("a line of capabilities").trim();
                u64::from_str_radix(mask, 16).expect("a mask") != 0
            };
            assert_eq!([has("CapEff:"), has("CapPrm:"), has("CapInh:")], [keep, keep, false]);
            assert_eq!(status.contains("NoNewPrivs:\t1"), !keep);
            threads += 1;
        }
        // Two workers, one that waits, and those of signals and the control socket.
        assert!(threads >= 5, "{threads} threads");
        // It reads its policy again without them.
        assert!(lab.firewall.reload(&WITH_HTTP.text()).contains("policy 2 is in force"));
    }
}

#[test]
fn the_control_socket_is_its_owners_and_no_client_stops_others() {
    if !can_run("the_control_socket_is_its_owners_and_no_client_stops_others", &[]) {
        return;
    }
    let lab = Lab::new("clients", &Rules::NEW, &[]);
    let control = lab.firewall.control();
    assert_eq!(fs::metadata(&control).expect("a socket").permissions().mode() & 0o777, 0o600);
    let begin = Instant::now();
    // Some say nothing, some half a request, one hangs up at once.
    let silent: Vec<_> = (0..12)
        .map(|number| {
            let mut client = UnixStream::connect(&control).expect("connected");
            if number % 2 == 0 {
                client.write_all(b"{\"command\":").expect("written");
            }
            client
        })
        .collect();
    drop(UnixStream::connect(&control).expect("connected"));
    let long = vec![b'x'; 200_000];
    for garbage in [&b"\xff\xfe\0\n"[..], b"{}\n", b"{\"command\":\"fly\"}\n", b"[[[[\n", &long] {
        let mut client = UnixStream::connect(&control).expect("connected");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        // It need not read what is too long.
        let _ = client.write_all(garbage);
        let mut answer = String::new();
        // Nor say anything to bytes that are no text.
        let read = BufReader::new(&client).read_line(&mut answer);
        let is_refused = answer.contains("\"error\"") && answer.contains("not a request");
        assert!(is_refused || !matches!(read, Ok(1..)), "{answer}");
        assert_eq!(lab.firewall.stats()["generation"], 1);
    }
    reach(&lab.instance, WORLD, "");
    assert!(lab.firewall.reload(&WITH_HTTP.text()).contains("policy 2 is in force"));
    assert!(begin.elapsed() < PATIENCE);
    drop(silent);
}

#[test]
fn it_ends_while_clients_hang() {
    if !can_run("it_ends_while_clients_hang", &[]) {
        return;
    }
    let mut lab = Lab::new("hang", &Rules::NEW, &[]);
    let mut clients: Vec<_> =
        (0..3).map(|_| UnixStream::connect(lab.firewall.control()).expect("connected")).collect();
    clients[0].write_all(b"{\"command\":\"trace\"}\n").expect("written");
    reach(&lab.instance, WORLD, "");
    lab.firewall.signal(Signal::TERM);
    let begin = Instant::now();
    assert_eq!(lab.firewall.wait().code(), Some(0));
    assert!(begin.elapsed().as_secs() < 3, "it took {:?}", begin.elapsed());
}
