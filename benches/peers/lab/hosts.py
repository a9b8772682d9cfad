"""Three network namespaces of our own: a client, a server, and the middle that is measured.

All that is made is deleted when the `with` block ends, however it ends.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from .report import ROOT, Unavailable, call

CLIENT, SERVER = "10.99.2.20", "10.99.1.10"
# Of the interface of the middle on either side, where it routes.
CLIENT_ROUTER, SERVER_ROUTER = "10.99.2.1", "10.99.1.1"
# Where the small datagrams come from: 65,536 addresses, and the port they go to.
SOURCES, PORT = "10.98.0.0", 9
MTU = 1500
# Flows that any contender may track at once.
MAX_FLOWS = 1 << 22
# Flows of the measurement of known ones: fewer than the queue of a TAP holds frames.
KNOWN_FLOWS = 400

EXAMPLES = ROOT / "target/release/examples"
SGWALL = ROOT / "target/release/sgwall"
_numbers = itertools.count()


def programs(target):
    """Says where our own programs are, if not where cargo puts them."""
    global EXAMPLES, SGWALL
    EXAMPLES, SGWALL = target / "release/examples", target / "release/sgwall"
    for path in (SGWALL, EXAMPLES / "traffic", EXAMPLES / "forward", EXAMPLES / "classbench"):
        if not path.exists():
            raise SystemExit(
                f"{path} is missing; cargo build --release -p sgwall"
                " && cargo build --release -p sgwall-benches --examples"
            )


@contextlib.contextmanager
def parameters(**least):
    """Raises kernel parameters to at least these for as long as the block runs; `a__b` is a/b. Those
    that this kernel does not have, or does not let be set, stay as they are."""
    before = {}
    try:
        for name, wanted in least.items():
            path = Path("/proc/sys") / name.replace("__", "/")
            with contextlib.suppress(OSError):
                before[path] = int(path.read_text())
                path.write_text(f"{max(before[path], wanted)}\n")
        yield
    finally:
        for path, value in before.items():
            with contextlib.suppress(OSError):
                path.write_text(f"{value}\n")


class Lab(contextlib.ExitStack):
    """The namespaces, what runs in them, and a directory for files."""

    def __init__(self):
        super().__init__()
        stem = f"sgwall-peers-{os.getpid()}-{next(_numbers)}"
        self.client, self.middle, self.server = (f"{stem}-{n}" for n in ("client", "middle", "server"))

    def __enter__(self):
        super().__enter__()
        try:
            self.directory = Path(tempfile.mkdtemp(prefix="sgwall-peers-"))
            self.callback(shutil.rmtree, self.directory, ignore_errors=True)
            for name in (self.client, self.middle, self.server):
                self.callback(
                    subprocess.run, ["ip", "netns", "delete", name], capture_output=True, check=False
                )
                call(["ip", "netns", "add", name])
                self.write(name, "net/ipv6/conf/all/disable_ipv6", 1)
                self.write(name, "net/ipv4/conf/all/rp_filter", 0)
                self.ip(name, "link set lo up")
        except BaseException:
            self.close()
            raise
        return self

    def inside(self, namespace, command, **options):
        """Runs a command in a namespace; its standard output."""
        return call(["ip", "netns", "exec", namespace, *map(str, command)], **options)

    def start(self, namespace, command, **options):
        """Starts a command in a namespace, which ends with the lab."""
        options.setdefault("stdout", subprocess.DEVNULL)
        log = self.directory / f"log-{next(_numbers)}"
        with open(log, "w") as stderr:
            child = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *map(str, command)], stderr=stderr, **options
            )
        child.log = log
        self.callback(end, child)
        return child

    def ip(self, namespace, words):
        """Runs `ip` for a namespace."""
        return call(["ip", "-n", namespace, *words.split()])

    def write(self, namespace, parameter, value):
        """Sets a kernel parameter of a namespace."""
        self.inside(namespace, ["sh", "-c", f"echo {value} > /proc/sys/{parameter}"])

    def link(self, namespace, device):
        """What `ip` says of a device."""
        return json.loads(call(["ip", "-n", namespace, "-j", "-s", "link", "show", "dev", device]))[0]

    def mac(self, namespace, device):
        """The MAC address of a device."""
        return self.link(namespace, device)["address"]

    def hand_over(self):
        """Gives the devices c and s of the middle to client and server."""
        for device, name in (("c", self.client), ("s", self.server)):
            self.ip(self.middle, f"link set {device} netns {name}")

    def wire(self):
        """Joins client and server to one network: where the middle is a wire."""
        self.join(f"{CLIENT}/16", f"{SERVER}/16")
        self.ip(self.server, f"route add {SOURCES}/16 dev s")
        client, server = self.mac(self.client, "c"), self.mac(self.server, "s")
        self.neighbour(self.client, "c", SERVER, server)
        self.neighbour(self.server, "s", CLIENT, client)
        self.next_hop = {"c": server, "s": client}

    def join(self, client, server):
        """Addresses, and the devices up."""
        for name, device, address in ((self.client, "c", client), (self.server, "s", server)):
            self.ip(name, f"address add {address} dev {device}")
            self.ip(name, f"link set {device} mtu {MTU} up")

    def neighbour(self, namespace, device, address, mac):
        """Makes ARP unnecessary."""
        self.ip(namespace, f"neighbour replace {address} lladdr {mac} nud permanent dev {device}")

    def veth(self):
        """Two virtual cables: c and s in client and server, mc and ms in the middle."""
        for device, name in (("c", self.client), ("s", self.server)):
            self.ip(
                self.middle, f"link add m{device} mtu {MTU} type veth peer name {device} mtu {MTU} netns {name}"
            )
            self.ip(self.middle, f"link set m{device} up")

    def received(self):
        """Frames that the server's interface has received."""
        return self.link(self.server, "s")["stats64"]["rx"]["packets"]


def end(child):
    """Ends a child, gently first."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(condition, what, child=None, seconds=10):
    """Waits until something holds; says why it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        if child is not None and child.poll() is not None:
            words = child.log.read_text().strip().splitlines()[-3:]
            raise Unavailable(f"{what}: it ended with status {child.returncode}: {' / '.join(words)}")
        time.sleep(0.02)
    raise Unavailable(f"{what}: not within {seconds} s")
