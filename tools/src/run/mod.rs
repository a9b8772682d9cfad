//! `sgwall run`: the firewall between devices, until it is told to end.
//!
//! Everything that can be wrong is found before the first frame passes: the policy, the devices,
//! the sockets, memory. Then all rights that are not needed any more are given up, workers start,
//! and this thread waits for signals, for a changed file, and for a worker that fails, in which case
//! nothing passes any more and the exit status says so.

mod args;
mod flow_log;
mod memory;
mod metrics;
mod notify;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;
use sgwall_live::control::{Loader, Server};
use sgwall_live::full::Watch;
use sgwall_live::shared::FAILED_ELSEWHERE;
use sgwall_live::{Engine, OpenOptions, OpenPort, open};
use sgwall_netio::worker::{Ended, Workers};
use sgwall_rules::model::{Policy, Port, PortKind, Vlans};
use sgwall_sandbox::rights::{self, Account};
use sgwall_sandbox::{Files, SandboxError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};

pub(crate) use args::{AskArgs, CONTROL, ControlArgs, FlowsArgs, FlowsCommand, RunArgs, TraceArgs};
use flow_log::{FlowLogWriter, Opened};
use metrics::Metrics;
use notify::Notifier;

use crate::cli::{OnReload, TableArgs};
use crate::failure::Failure;
use crate::policy;

/// How often to look whether a policy file has changed, and whether flows find a place.
const WATCH: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    start_log();
    if args.rotation.rotate.is_some() && args.flow_log.path.as_deref() == Some(Path::new("-")) {
        let message = "standard output cannot be rotated: name a file after --flow-log, or leave out --flow-log-rotate";
        return Err(Failure::Usage(message.into()));
    }
    let log_bytes = if args.flow_log.path.is_some() { flow_log::MAX_BYTES } else { 0 };
    memory::check(args.table.max_flows, log_bytes)?;
    // What is written after the policy is read is not lost.
    let seen = args.watch.then(|| changed(&args.policy));
    let model = read_policy(&args.policy)?;
    check_reserves(args.table, &model)?;
    let ports = ports(args, &model)?;
    let account = args.user.as_deref().map(Account::find).transpose().map_err(usage)?;
    let notifier = Notifier::new();
    // Signals wait from here on: one that comes early must not kill a half-made firewall.
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1])
        .map_err(|e| Failure::Io(format!("cannot receive signals: {e}")))?;

    let options = OpenOptions { queues: args.workers.into(), offload: !args.no_offload };
    let mut opened = Vec::with_capacity(ports.len());
    for port in &ports {
        let device = open(port, options).map_err(|e| Failure::Io(e.to_string()))?;
        say_opened(&device);
        opened.push(device);
    }
    let metrics = args.metrics.map(Metrics::bind).transpose()?;
    let listener = Server::bind(&args.control).map_err(|e| unserved(&args.control, &e))?;
    let log = give_up_rights(args, account.as_ref()).inspect_err(|_| {
        // Nobody will serve it. If it has to stay, the next start replaces it.
        let _ = std::fs::remove_file(&args.control);
    })?;

    let config = args.table.config();
    let on_reload = match args.on_reload {
        OnReload::Keep => sgwall_live::OnReload::Keep,
        OnReload::Rejudge => sgwall_live::OnReload::Rejudge,
    };
    let (engine, workers) = Engine::start(opened, model, args.workers.into(), config, on_reload)
        .map_err(|e| Failure::Io(e.to_string()))?;
    let flow_log = log.map(|log| log.start(&args.flow_log, &engine)).transpose()?;
    let loader = loader(args.policy.clone(), args.table);
    let control = serve(listener, args, &engine, &loader)?;
    let metrics = metrics.map(|metrics| metrics.serve(Arc::clone(&engine))).transpose()?;

    info!(workers = args.workers, control = %args.control.display(), "the firewall runs");
    notifier.tell(&[NotifyState::Ready]);
    let running = Running { engine: &engine, loader: &loader, notifier: &notifier };
    wait(args, seen, &running, &workers, signals, flow_log.as_ref());
    notifier.tell(&[NotifyState::Stopping]);
    drop((control, metrics));
    let ended = workers.join();
    let has_panicked = ended.iter().any(|worker| worker.handler.is_none());
    let result = end(ended);
    if has_panicked {
        // The state that it left cannot be trusted, and must not be locked again.
        return result;
    }
    if let Some(flow_log) = flow_log {
        flow_log.finish(&engine);
    }
    let stats = engine.stats();
    let sum = |verdict: &str| -> u64 {
        stats.reasons.iter().filter(|of| of.verdict == verdict).map(|of| of.packets).sum()
    };
    info!(
        passed = sum("pass"),
        dropped = sum("drop"),
        flows = stats.flows_created,
        seconds = stats.uptime,
        "the firewall has ended; nothing passes"
    );
    result
}

/// Gives up every right that is not needed once devices and sockets are open. The flow log is opened
/// in between: as the user whose file it is to be.
fn give_up_rights(
    args: &RunArgs,
    account: Option<&Account>,
) -> Result<Option<FlowLogWriter<Opened>>, Failure> {
    let refused = |error: SandboxError| Failure::Io(error.to_string());
    if args.keep_privileges {
        warn!("all privileges are kept, and no sandbox is in force (--keep-privileges)");
        return FlowLogWriter::open(&args.flow_log, args.rotation);
    }
    if let Some(account) = account {
        account.give(&args.control).map_err(|e| unserved(&args.control, &e))?;
    }
    rights::give_up(account).map_err(refused)?;
    let log = FlowLogWriter::open(&args.flow_log, args.rotation)?;
    let mut files = Files::default();
    args.policy.iter().for_each(|path| files.read_again(path));
    files.remove(&args.control);
    if let Some(path) = args.flow_log.path.as_deref().filter(|path| *path != Path::new("-")) {
        files.append(path);
    }
    match sgwall_sandbox::enter(args.sandbox.into(), &files).map_err(refused)? {
        Some(sandbox) if sandbox.is_whole() => info!("no capabilities; {sandbox}"),
        Some(sandbox) => warn!("no capabilities; {sandbox}"),
        None => warn!("no capabilities; no sandbox is in force (--sandbox=off)"),
    }
    // What cannot be read now could not be read at a reload.
    policy::read(&args.policy).map_err(|failure| {
        let mend = "it could not be reloaded: let this user read it, and keep it in its directory";
        Failure::Io(format!("{}; {mend}", plain(&failure)))
    })?;
    Ok(log)
}

fn usage(error: SandboxError) -> Failure {
    Failure::Usage(error.to_string())
}

fn unserved(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Io(format!("cannot serve {}: {error}", path.display()))
}

fn serve(
    listener: UnixListener,
    args: &RunArgs,
    engine: &Arc<Engine>,
    loader: &Arc<Loader>,
) -> Result<Server, Failure> {
    Server::serve(listener, &args.control, Arc::clone(engine), Arc::clone(loader))
        .map_err(|e| unserved(&args.control, &e))
}

/// Log lines go to standard error, never one for a packet.
fn start_log() {
    use std::io::IsTerminal;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // Already set only where a test runs the command twice.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color)
        .with_target(false)
        .try_init();
}

/// The ports: those of the flags, else those of the policy.
fn ports(args: &RunArgs, model: &Policy) -> Result<Vec<Port>, Failure> {
    let (Some(interface), Some(instance), Some(network)) =
        (&args.interface, &args.instance, &args.network)
    else {
        if model.ports.is_empty() {
            return Err(Failure::Usage(
                "no devices; say --interface ENI --instance DEVICE --network DEVICE, or add \
                 [[port]] to the policy"
                    .into(),
            ));
        }
        let with_mtu = |port: &Port| Port { mtu: port.mtu.or(args.mtu), ..port.clone() };
        return Ok(model.ports.iter().map(with_mtu).collect());
    };
    if model.interfaces.iter().all(|known| known.id != *interface) {
        let ids: Vec<_> = model.interfaces.iter().map(|known| known.id.as_str()).collect();
        return Err(Failure::Usage(format!(
            "--interface {interface}: no such interface; the policy has {}",
            if ids.is_empty() { "none".into() } else { ids.join(", ") }
        )));
    }
    let port = |device: &str, interface: Option<&String>| {
        let (kind, name) = match device.split_once(':') {
            Some(("packet", name)) => (PortKind::Existing, name),
            Some(("tap", name)) => (PortKind::Tap, name),
            _ => (PortKind::Tap, device),
        };
        Port {
            device: name.to_owned(),
            kind,
            interface: interface.cloned(),
            mtu: args.mtu.filter(|_| kind == PortKind::Tap),
            vlans: Vlans::None,
            origin: sgwall_rules::diagnostic::Origin::synthetic("command line"),
        }
    };
    Ok(vec![port(instance, Some(interface)), port(network, None)])
}

fn say_opened(open: &OpenPort) {
    let OpenPort { port, interface, granted, .. } = open;
    info!(
        device = port.device,
        interface = port.interface.as_deref().unwrap_or("(network)"),
        mtu = interface.mtu,
        checksum = granted.checksum,
        tcp_segmentation = granted.tcp,
        udp_segmentation = granted.udp,
        "open"
    );
}

/// Reads and validates a policy that will be read again, and says who else could change it.
fn read_policy(paths: &[PathBuf]) -> Result<Arc<Policy>, Failure> {
    if let Some(path) =
        paths.iter().find(|path| !(path.is_file() || path.is_dir() || !path.exists()))
    {
        return Err(Failure::Usage(format!(
            "{}: a policy that can be reloaded is a file or a directory, not a pipe or a device; \
             write it to a file",
            path.display()
        )));
    }
    let model = policy::load_model(&policy::read(paths)?)?;
    for warning in policy::writable_by_others(paths) {
        warn!("{}", plain(&warning));
    }
    Ok(model)
}

/// Reads and validates the policy again.
fn loader(paths: Vec<PathBuf>, table: TableArgs) -> Arc<Loader> {
    Arc::new(move || {
        let model = read_policy(&paths);
        let model = model.and_then(|model| check_reserves(table, &model).map(|()| model));
        model.map_err(|failure| plain(&failure))
    })
}

/// Without colours.
fn plain(text: &impl ToString) -> String {
    anstream::adapter::strip_str(&text.to_string()).to_string()
}

/// What a running firewall is asked for while it waits.
struct Running<'a> {
    engine: &'a Engine,
    loader: &'a Arc<Loader>,
    notifier: &'a Notifier,
}

fn check_reserves(table: TableArgs, model: &Policy) -> Result<(), Failure> {
    table.check_reserves(model.interfaces.iter().map(|of| (of.id.as_str(), of.flows)))
}

/// Waits until the firewall is to end, or has.
fn wait(
    args: &RunArgs,
    mut seen: Option<Changed>,
    running: &Running<'_>,
    workers: &Workers<sgwall_live::Firewall>,
    mut signals: Signals,
    flow_log: Option<&FlowLogWriter>,
) {
    let (sender, received) = mpsc::channel();
    let handle = signals.handle();
    let thread = std::thread::spawn(move || {
        for signal in &mut signals {
            if sender.send(signal).is_err() {
                return;
            }
        }
    });
    let mut looked = std::time::Instant::now();
    let (mut table, mut looked_at_table) = (Watch::default(), looked);
    loop {
        match received.recv_timeout(Duration::from_millis(100)) {
            Ok(SIGHUP) => running.reload(),
            Ok(SIGUSR1) => {
                if let Some(flow_log) = flow_log {
                    flow_log.reopen();
                }
            }
            Ok(signal) => {
                info!(signal = signal_hook::low_level::signal_name(signal), "told to end");
                break;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if workers.wait(Duration::ZERO) {
            break;
        }
        if looked_at_table.elapsed() >= WATCH {
            looked_at_table = std::time::Instant::now();
            if let Some(filled) = table.look(running.engine) {
                warn!("{filled}");
            }
        }
        if let Some(seen) = seen.as_mut().filter(|_| looked.elapsed() >= WATCH) {
            looked = std::time::Instant::now();
            let now = changed(&args.policy);
            if now != *seen {
                *seen = now;
                running.reload();
            }
        }
    }
    handle.close();
    let _ = thread.join();
}

impl Running<'_> {
    /// Puts the policy in force as it is now; a broken one leaves the old one, and says why.
    fn reload(&self) {
        let reloading = NotifyState::Reloading;
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notifier.tell(&[reloading, now]),
            Err(_) => self.notifier.tell(&[reloading]),
        }
        match (self.loader)() {
            Ok(policy) => info!("{}", self.engine.reload(policy)),
            Err(message) => warn!("the old policy stays in force: {message}"),
        }
        self.notifier.tell(&[NotifyState::Ready]);
    }
}

/// Files, when they last changed, and how many bytes they have.
pub(crate) type Changed = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// When the files of a policy last changed.
pub(crate) fn changed(paths: &[PathBuf]) -> Changed {
    let mut files = Vec::new();
    for path in paths {
        let inside = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
        for file in std::iter::once(path.clone()).chain(inside) {
            let metadata = file.metadata().ok();
            let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
            files.push((file, modified, metadata.map_or(0, |metadata| metadata.len())));
        }
    }
    files.sort();
    files
}

/// How the workers ended.
fn end(ended: Vec<Ended<sgwall_live::Firewall>>) -> Result<(), Failure> {
    let mut failed = Vec::new();
    for Ended { worker, result, .. } in ended {
        if let Err(failure) = result {
            error!(worker, "{failure}");
            failed.push(format!("worker {worker}: {failure}"));
        }
    }
    // The cause, and not another worker that met what it left behind.
    let cause = failed.iter().find(|failure| !failure.contains(FAILED_ELSEWHERE));
    match cause.or(failed.first()) {
        None => Ok(()),
        Some(first) => {
            Err(Failure::Live(format!("the firewall failed, and nothing passes: {first}")))
        }
    }
}
