"""What was measured: raw values, medians, ratios of paired runs, and the machine."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent


class Unavailable(Exception):
    """A peer cannot be run on this machine, and why."""


def say(text):
    """A line for whoever waits; data goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def call(command, timeout=60, **options):
    """The standard output of a command; its own words if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, **options
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{error.filename} is missing; run benches/peers/install") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} did not end within {timeout} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise Unavailable(f"{' '.join(map(str, command[:8]))}: status {done.returncode}: {' / '.join(words)}")
    return done.stdout


def version(package):
    """The version of a Debian package, or None."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
    )
    return done.stdout or None


def machine():
    """What the figures belong to."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    try:
        commit = call(["git", "-C", ROOT, "describe", "--always", "--dirty"]).strip()
    except Unavailable:
        commit = None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "sgwall": commit,
    }


class Comparison:
    """Values of several contenders, taken in turns: round by round, each once."""

    def __init__(self, name, packages, parameters):
        self.name = name
        self.machine = machine()
        self.versions = {package: version(package) for package in packages}
        self.parameters = parameters
        self.values = {}
        self.failures = {}
        self.notes = {}

    def add(self, measure, contender, round_, value):
        """Adds one value, something a second. A contender that fails in one round has none there."""
        self.values.setdefault(measure, {}).setdefault(contender, {})[round_] = round(value)

    def fail(self, contender, error):
        """A contender could not be run."""
        if contender not in self.failures:
            say(f"  {contender} cannot be measured: {error}")
        self.failures[contender] = str(error)

    def median(self, measure, contender):
        """The median of a contender's values, or None."""
        values = self.values.get(measure, {}).get(contender, {})
        return statistics.median(values.values()) if values else None

    def ratio(self, measure, contender, peer):
        """The median of the ratios within each round, or None."""
        ours = self.values.get(measure, {}).get(contender, {})
        theirs = self.values.get(measure, {}).get(peer, {})
        ratios = [ours[k] / theirs[k] for k in ours if theirs.get(k)]
        return statistics.median(ratios) if ratios else None

    def write(self, directory, pairs):
        """Writes NAME.json; `pairs` are the (contender, peer) whose ratios are of interest."""
        medians = {
            measure: {contender: self.median(measure, contender) for contender in values}
            for measure, values in self.values.items()
        }
        ratios = [
            {"measure": measure, "of": of, "to": to, "ratio": round(ratio, 3)}
            for measure in self.values
            for of, to in pairs
            if (ratio := self.ratio(measure, of, to)) is not None
        ]
        raw = {
            measure: {contender: list(values.values()) for contender, values in by.items()}
            for measure, by in self.values.items()
        }
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.json"
        answer = {
            "bench": self.name,
            "machine": self.machine,
            "versions": self.versions,
            "parameters": self.parameters,
            "failures": self.failures,
            "notes": self.notes,
            "medians": medians,
            "ratios": ratios,
            "values": raw,
        }
        path.write_text(json.dumps(answer, indent=1) + "\n")
        say(f"wrote {path}")
        return answer


def table(rows):
    """Prints rows of cells, the first row being the heads; all but the first column to the right."""
    rows = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
    print(flush=True)


def number(value):
    """Three significant digits, or a dash."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
