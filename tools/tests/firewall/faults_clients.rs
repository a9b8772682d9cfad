//! Clients of the control socket that hang, lie, or are too many; and those of another user.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clients::{ClosedPort, at, reach, udp};
use crate::lab::{Firewall, INSTANCE, Lab, PATIENCE, Rules, WORLD, can_run, eventually, text};

/// Tracked UDP (SEMANTICS 6.2), to make many flows at once.
const WITH_UDP: Rules<'static> = Rules {
    ingress: r#"{ protocol = "udp", ports = "1000-60000", cidr = "203.0.113.0/24" }"#,
    ..Rules::NEW
};

fn client(firewall: &Firewall) -> UnixStream {
    let client = UnixStream::connect(firewall.control()).expect("connected");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    client
}

#[test]
fn clients_that_hang_are_hung_up_on_and_hold_up_nobody() {
    if !can_run("clients_that_hang_are_hung_up_on_and_hold_up_nobody", &[]) {
        return;
    }
    let lab = Lab::new("hung", &WITH_UDP, &[]);
    let closed = ClosedPort::of(&lab.instance);
    reach(&lab.instance, WORLD, "");
    // As many flows as make a list that no socket's buffer takes whole.
    let socket = udp(&lab.world, &format!("{WORLD}:500"));
    eventually("many flows", || {
        for port in 1000..4000 {
            let _ = socket.send_to(b"?", at(INSTANCE, port));
        }
        lab.firewall.stats()["flows"].as_u64().is_some_and(|flows| flows > 2500)
    });
    let before = lab.firewall.status("VmRSS:");
    // As many as are answered at once ask for all of it and read nothing.
    let deaf: Vec<_> = (0..16)
        .map(|_| {
            let mut client = client(&lab.firewall);
            client.write_all(b"{\"command\":\"flows\"}\n").expect("written");
            client
        })
        .collect();
    let silent: Vec<_> = (0..10).map(|_| client(&lab.firewall)).collect();
    let half: Vec<_> = (0..10)
        .map(|_| {
            let mut client = client(&lab.firewall);
            client.write_all(b"{\"command\":").expect("written");
            client
        })
        .collect();
    let garbage = vec![b'x'; 10 << 20];
    // It is hung up on before it has said all of that.
    assert!(client(&lab.firewall).write_all(&garbage).is_err());
    assert_eq!(lab.firewall.stats()["generation"], 1);
    assert!(lab.firewall.reload(&WITH_UDP.text()).contains("policy 2 is in force"));
    reach(&lab.instance, WORLD, "");
    closed.is_closed_to(&lab.world);
    // In the end all of them are hung up on; nobody has got a whole list without reading.
    for mut client in silent.iter().chain(&half) {
        // Nothing, or why what it said is no request.
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("hung up");
        assert!(answer.is_empty(), "{answer}");
    }
    eventually("the deaf are given up", || lab.firewall.status("Threads:") < 10);
    for mut client in deaf {
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(!text(&answer).contains("\"done\""));
    }
    let grown = lab.firewall.status("VmRSS:").saturating_sub(before);
    assert!(grown < 64 << 10, "it has grown by {grown} KiB");
}

#[test]
fn a_thousand_clients_at_once_hold_up_nobody() {
    if !can_run("a_thousand_clients_at_once_hold_up_nobody", &[]) {
        return;
    }
    let limits = getrlimit(Resource::Nofile);
    let enough = Rlimit { current: limits.maximum, ..limits };
    setrlimit(Resource::Nofile, enough).expect("a soft limit");
    let lab = Lab::new("thousand", &Rules::NEW, &[]);
    let before = lab.firewall.status("VmRSS:");
    let clients: Vec<_> = (0..1000).map(|_| client(&lab.firewall)).collect();
    assert_eq!(lab.firewall.stats()["generation"], 1);
    reach(&lab.instance, WORLD, "");
    assert_eq!(lab.firewall.ask(&["flows", "protocol=udp"]).trim(), "no flows");
    // Some wait; most have been hung up on to make room; none has a thread.
    let fds = fs::read_dir(format!("/proc/{}/fd", lab.firewall.pid())).expect("its files").count();
    assert!(fds < 150, "{fds} descriptors");
    assert!(lab.firewall.status("Threads:") < 10);
    let grown = lab.firewall.status("VmRSS:").saturating_sub(before);
    assert!(grown < 32 << 10, "it has grown by {grown} KiB");
    drop(clients);
    assert_eq!(lab.firewall.stats()["generation"], 1);
}

/// The socket is its owner's and root's: by its mode, and by asking the kernel who is there.
#[test]
fn another_user_is_refused_whatever_the_mode() {
    if !can_run("another_user_is_refused_whatever_the_mode", &["setpriv", "perl"]) {
        return;
    }
    // Whatever this test and sgwall are, that user may not be able to run; perl is everywhere.
    // It may be hung up on before it asks.
    const SCRIPT: &str = "$SIG{PIPE} = 'IGNORE'; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die \"$!\\n\"; \
        print $s qq({\"command\":\"stats\"}\\n); $s->flush; print scalar <$s>;";
    let lab = Lab::new("other", &Rules::NEW, &[]);
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["perl", "-MIO::Socket::UNIX", "-e", SCRIPT]).arg(lab.firewall.control());
        command.output().expect("setpriv of util-linux")
    };
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    };
    open(lab.firewall.dir(), 0o755);
    let output = as_nobody();
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("Permission denied"), "{}", text(&output.stderr));
    open(&lab.firewall.control(), 0o666);
    let answer = text(&as_nobody().stdout);
    assert!(answer.contains("\"error\"") && answer.contains("belongs to another user"), "{answer}");
    // Root is not refused.
    let mut client = client(&lab.firewall);
    client.write_all(b"{\"command\":\"stats\"}\n").expect("written");
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).expect("an answer");
    assert!(line.contains("\"stats\""), "{line}");
}
