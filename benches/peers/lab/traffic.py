"""The measurements: each takes a lab whose middle is ready, and answers with one number."""

import json
import time

from . import hosts
from .hosts import CLIENT, KNOWN_FLOWS, PORT, SERVER, SOURCES
from .report import Unavailable


def datagrams(lab, *options, side="c", port=PORT):
    """Runs the sender; its report."""
    name = lab.client if side == "c" else lab.server
    command = [hosts.EXAMPLES / "traffic", "udp", side, f"{SERVER}:{port}"]
    command += ["--next-hop", lab.next_hop[side], "--from", SOURCES, *options]
    return json.loads(lab.inside(name, command))


def delivered(lab, *options, **which):
    """Frames a second that reach the server of what is sent as fast as it can be."""
    before = lab.received()
    sent = datagrams(lab, *options, **which)
    # What is still in queues.
    time.sleep(0.02)
    return (lab.received() - before) / sent["seconds"]


def new_flows(lab, seconds, threads=1):
    """Every frame begins a flow."""
    return delivered(lab, "--threads", threads, "--seconds", seconds)


def known_flows(lab, seconds, threads=1):
    """Frames of flows that both ends have sent to."""
    flows = ["--flows", KNOWN_FLOWS]
    # Twice, in case that a frame was lost.
    for _ in range(2):
        datagrams(lab, *flows, "--once")
        time.sleep(0.05)
        datagrams(lab, *flows, "--once", "--answers", side="s")
        time.sleep(0.05)
    return delivered(lab, *flows, "--threads", threads, "--seconds", seconds)


def filters(lab):
    """Fails unless what the rules allow passes, and what they do not allow is kept from the server:
    a firewall that lets all pass is quick."""
    before = lab.received()
    datagrams(lab, "--flows", KNOWN_FLOWS, "--once")
    # A contender that has just begun may keep the first ones waiting: none of them is a leak.
    patience = time.monotonic() + 1
    while lab.received() - before < KNOWN_FLOWS and time.monotonic() < patience:
        time.sleep(0.05)
    passed = lab.received() - before
    datagrams(lab, "--flows", KNOWN_FLOWS, "--once", port=PORT + 1)
    time.sleep(0.1)
    leaked = lab.received() - before - passed
    if passed < KNOWN_FLOWS // 2 or leaked > 10:
        raise Unavailable(f"its rules do not work: {passed} of {KNOWN_FLOWS} passed, {leaked} leaked")


def connections(lab, seconds):
    """TCP connections a second, opened and closed by four threads."""
    command = [hosts.EXAMPLES / "traffic", "connect", f"{SERVER}:{PORT}", "--seconds", seconds]
    made = json.loads(lab.inside(lab.client, command))
    return made["connections"] / made["seconds"]


def stream(lab, seconds):
    """Bits a second of one TCP connection."""
    command = ["iperf3", "-J", "-c", SERVER, "-B", CLIENT, "-t", max(1, round(seconds))]
    for attempt in range(1, 6):
        server = lab.start(lab.server, ["iperf3", "-s", "-1", "-B", SERVER])
        time.sleep(0.1 * attempt)
        try:
            answer = json.loads(lab.inside(lab.client, command, timeout=seconds + 20))
            return answer["end"]["sum_received"]["bits_per_second"]
        except (Unavailable, KeyError):
            # It did not listen yet, which the client says in one way or the other.
            continue
        finally:
            hosts.end(server)
    raise Unavailable("iperf3 does not measure")


def listen(lab):
    """Has the server accept connections and take datagrams."""
    command = [hosts.EXAMPLES / "traffic", "accept", f"{SERVER}:{PORT}"]
    child = lab.start(lab.server, command)
    ready = lambda: f":{PORT} " in lab.inside(lab.server, ["ss", "-Hltn"])
    hosts.wait_for(ready, "the server", child)
