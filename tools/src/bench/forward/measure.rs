//! The measurements: iperf3 for bytes and datagrams, a client of our own for connections.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use sgwall_netio::netns::NetnsError;

use super::lab::{Lab, SERVER};
use crate::failure::Failure;

/// Payload of the small datagrams: with UDP, IPv4 and Ethernet headers and a frame check sequence
/// they are 64 bytes, the shortest frame.
const SMALL: &str = "18";
/// Connecting threads of the connection measurement.
const CONNECTORS: usize = 4;
/// How long to go on trying to reach a server that has just been started.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Bytes in frames of one TCP connection.
    #[value(name = "tcp-1")]
    OneStream,
    /// Bytes in frames of four TCP connections.
    #[value(name = "tcp-4")]
    FourStreams,
    /// Frames of one sender that sends the shortest datagrams as fast as it can.
    #[value(name = "udp-64")]
    Datagrams,
    /// TCP connections opened, used for nothing and closed, one after the other in four threads.
    Connections,
}

impl Measure {
    pub(super) const ALL: [Measure; 4] =
        [Measure::OneStream, Measure::FourStreams, Measure::Datagrams, Measure::Connections];

    /// What it is called, and the unit of its values.
    pub(super) const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Measure::OneStream => ("tcp-1", "TCP, 1 stream", "Gbit/s"),
            Measure::FourStreams => ("tcp-4", "TCP, 4 streams", "Gbit/s"),
            Measure::Datagrams => ("udp-64", "UDP, 64-byte frames", "k/s"),
            Measure::Connections => ("connections", "new connections", "k/s"),
        }
    }

    /// Has clients do for so many seconds what is measured; workers count what crosses.
    pub(super) fn take(
        self,
        lab: &Lab,
        seconds: u16,
        interrupted: &AtomicBool,
    ) -> Result<(), Failure> {
        let time = seconds.to_string();
        match self {
            Measure::OneStream => iperf3(lab, &["-t", &time], interrupted),
            Measure::FourStreams => iperf3(lab, &["-t", &time, "-P", "4"], interrupted),
            Measure::Datagrams => {
                iperf3(lab, &["-t", &time, "-u", "-b", "0", "-l", SMALL], interrupted)
            }
            Measure::Connections => connections(lab, seconds, interrupted),
        }
    }
}

/// Fails with the mend if there is no iperf3.
pub(super) fn require_iperf3() -> Result<(), Failure> {
    let found = Command::new("iperf3").arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Io(format!(
            "cannot run iperf3 ({error}); install it (Debian package iperf3)"
        ))),
    }
}

/// A child that is killed when it is not needed any more, however that comes.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a server and a client to its end.
fn iperf3(lab: &Lab, args: &[&str], interrupted: &AtomicBool) -> Result<(), Failure> {
    let failed = |what: &str| Failure::Io(format!("iperf3: {what}"));
    let started = |error: std::io::Error| Failure::Io(format!("cannot run iperf3: {error}"));
    let mut server = lab.server.command("iperf3");
    server.args(["-s", "-B", SERVER]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Killed(server.spawn().map_err(started)?);
    let begin = Instant::now();
    loop {
        let mut client = lab.client.command("iperf3");
        client.args(["-J", "-c", SERVER]).args(args);
        client.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = Killed(client.spawn().map_err(started)?);
        let Some(mut output) = client.0.stdout.take() else {
            return Err(failed("its output cannot be read"));
        };
        // It closes its output when it ends, and an interrupt from the terminal ends it as well.
        let reader = thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).map(|_| text)
        });
        while !reader.is_finished() {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let text = match reader.join() {
            Ok(Ok(text)) => text,
            _ => return Err(failed("its output cannot be read")),
        };
        let answer: serde_json::Value =
            serde_json::from_str(&text).map_err(|_| failed("it answered with no JSON"))?;
        match answer.pointer("/error").and_then(|error| error.as_str()) {
            None => return Ok(()),
            // The server may not listen yet.
            Some(error) if error.contains("onnect") && begin.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(50));
            }
            Some(error) => return Err(failed(error)),
        }
    }
}

/// Connections one after the other in some threads: opened by the client, closed by the server, then by the
/// client, so that no client port stays reserved.
fn connections(lab: &Lab, seconds: u16, interrupted: &AtomicBool) -> Result<(), Failure> {
    let entered = |error: NetnsError| Failure::Io(error.to_string());
    let failed = |error: std::io::Error| Failure::Io(format!("new connections: {error}"));
    let bind = || TcpListener::bind((SERVER, 0));
    let listener = lab.server.inside(bind).map_err(entered)?.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for accepted in listener.incoming() {
                drop(accepted);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let connectors: Vec<_> = (0..CONNECTORS)
            .map(|_| {
                let work = move || connect_until(address, end, interrupted);
                scope.spawn(move || lab.client.inside(work))
            })
            .collect();
        let mut problem = None;
        for connector in connectors {
            match connector.join() {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => problem = Some(failed(error)),
                Ok(Err(error)) => problem = Some(entered(error)),
                Err(_) => problem = Some(Failure::Io("a connecting thread panicked".to_owned())),
            }
        }
        stop.store(true, Ordering::Relaxed);
        // The acceptor looks after one more connection.
        let last = lab.server.inside(|| TcpStream::connect(address)).map_err(entered)?;
        last.map_err(failed)?;
        match problem {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    })
}

/// Opens and closes connections until `end`.
fn connect_until(
    address: SocketAddr,
    end: Instant,
    interrupted: &AtomicBool,
) -> std::io::Result<()> {
    while Instant::now() < end && !interrupted.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address)?;
        // Until the server has closed.
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
