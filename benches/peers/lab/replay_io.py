"""Replay of a capture: sgwall's judgement of every packet, and tcpdump's mere copying."""

import random
import struct
import tempfile
import time
from pathlib import Path

from . import contenders, hosts
from .hosts import SERVER
from .report import Comparison, Unavailable, call, say, table

# Lengths of frames, bytes, and how many of twelve have each: the usual simple mix.
MIX = [(60, 7), (590, 4), (1514, 1)]
FLOWS = 1000


def replay_io(args):
    """Both read the same file from the page cache, in turns."""
    packets = 100_000 if args.quick else 1_000_000
    comparison = Comparison("replay-io", ["tcpdump"], {"rounds": args.rounds, "packets": packets, "mix": MIX})
    with tempfile.TemporaryDirectory(prefix="sgwall-peers-") as name:
        capture, policy = Path(name) / "capture.pcap", Path(name) / "policy.toml"
        say(f"replay-io: making a capture of {packets} packets")
        size = write_capture(capture, packets)
        policy.write_text(contenders.Sgwall(100).policy())
        commands = {
            "tcpdump": ["tcpdump", "-Z", "root", "-r", capture, "-w", "/dev/null"],
            "sgwall replay": [hosts.SGWALL, "replay", capture, "--policy", policy],
        }
        order = list(commands)
        for round_ in range(args.rounds):
            for contender in order if round_ % 2 == 0 else order[::-1]:
                begin = time.monotonic()
                try:
                    output = call(list(map(str, commands[contender])), timeout=120)
                except Unavailable as error:
                    comparison.fail(contender, error)
                    continue
                took = time.monotonic() - begin
                comparison.add("packets", contender, round_, packets / took)
                comparison.add("bytes", contender, round_, size / took)
                if contender == "sgwall replay":
                    comparison.notes[contender] = output.splitlines()
    comparison.write(args.results, [("sgwall replay", "tcpdump")])
    rows = [["replay-io", "M packets/s", "GB/s"]]
    for contender in order:
        medians = comparison.median("packets", contender), comparison.median("bytes", contender)
        rows.append([contender, medians[0] and medians[0] / 1e6, medians[1] and medians[1] / 1e9])
    rows.append(["sgwall / tcpdump", comparison.ratio("packets", "sgwall replay", "tcpdump"), ""])
    table(rows)


def write_capture(path, count):
    """Packets of TCP flows of one client with the server, in both directions; bytes written."""
    draw = random.Random(5)
    lengths = [length for length, weight in MIX for _ in range(weight)]
    frames = []
    for flow in range(FLOWS):
        port = 10_000 + flow
        frames.append(frame(60, port, 0x02, True))
        frames.append(frame(60, port, 0x12, False))
    opening = list(frames)
    frames = [
        frame(draw.choice(lengths), 10_000 + k % FLOWS, 0x10, draw.random() < 0.5) for k in range(8 * FLOWS)
    ]
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for k in range(count):
            data = opening[k] if k < len(opening) else frames[k % len(frames)]
            out.write(struct.pack("<IIII", 1_700_000_000 + k // 100_000, k % 100_000 * 10, len(data), len(data)))
            out.write(data)
        return out.tell()


def frame(length, port, flags, from_client):
    """Ethernet, IPv4, TCP, zeros."""
    ends = [(address(hosts.CLIENT), port), (address(SERVER), 443)]
    (source, sport), (destination, dport) = ends if from_client else ends[::-1]
    head = struct.pack(">BBHHHBBH", 0x45, 0, length - 14, 0, 0x4000, 64, 6, 0) + source + destination
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
    tcp = struct.pack(">HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 65535, 0, 0)
    macs = bytes.fromhex("020000000001020000000002")
    return (macs + b"\x08\x00" + head + tcp).ljust(length, b"\0")


def address(text):
    """The four bytes of an IPv4 address."""
    return bytes(map(int, text.split(".")))
