"""Lookups: DPDK's ACL library by its own test program, and sgwall's matcher."""

import contextlib
import gzip
import json
import os
import re
import tempfile
from pathlib import Path

from . import hosts
from .report import Comparison, Unavailable, call, say, table

SETS = ["acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k", "ipc1_10k"]
# Huge pages of 2 MiB for DPDK, and the megabytes of them that it takes.
PAGES, MEGABYTES = 400, 768
# Lookups of one run of DPDK, about 0.3 s.
LOOKUPS = 15_000_000
# The ways of classifying to choose from, by what DPDK chooses itself: some need wider registers
# than it uses unasked.
WIDE = "--force-max-simd-bitwidth=512"
WAYS = {
    "default": ([], []),
    "avx512x16": ([WIDE], ["--alg=avx512x16"]),
    "avx512x32": ([WIDE], ["--alg=avx512x32"]),
}


class Case:
    """A filter set with its trace, in the form that is measured."""

    def __init__(self, name, filters, trace, options=(), label=""):
        self.name = name + label
        self.filters, self.trace, self.options = filters, trace, list(options)
        self.ipv6 = "--ipv6" in self.options


def acl(args):
    """Both in turns, pinned to one core, on the same projection of the same filters and packets."""
    parameters = {"rounds": args.rounds, "lookups": LOOKUPS, "core": core()}
    comparison = Comparison("acl", ["dpdk-dev"], parameters)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sgwall-peers-")))
        found = cases(args.classbench, directory, quick=args.quick)
        stack.enter_context(hosts.parameters(vm__nr_hugepages=PAGES))
        dpdk = Dpdk(comparison)
        for case in found:
            say(f"acl: {case.name}")
            measure(comparison, dpdk, case, directory, args.rounds)
        for case in found:
            if not case.options:
                with guard(comparison, f"DPDK, five fields, {case.name}"):
                    rate = dpdk.lookups(case.filters, case.trace, ipv6=False, way="default")
                    comparison.add(case.name, "DPDK, five fields", 0, rate)
    comparison.write(args.results, [("sgwall", "DPDK"), ("sgwall, batches", "DPDK")])
    contenders = ["DPDK", "sgwall", "sgwall, batches", "sgwall, hits", "sgwall, misses", "sgwall, cold", "DPDK, five fields"]
    rows = [["M lookups/s", *contenders, "one by one / DPDK", "batches / DPDK"]]
    for case in found:
        medians = [comparison.median(case.name, contender) for contender in contenders]
        ratios = [comparison.ratio(case.name, ours, "DPDK") for ours in ("sgwall", "sgwall, batches")]
        rows.append([case.name, *(m and m / 1e6 for m in medians), *ratios])
    table(rows)


def cases(folder, directory, quick):
    """The cases that the folder has the sets for; their traces are unpacked into `directory`."""
    if not folder or not Path(folder).is_dir():
        raise Unavailable(
            "no ClassBench sets: name their folder with --classbench or SGWALL_CLASSBENCH"
            " (files such as acl1_1k and acl1_1k_trace.gz)"
        )
    found = []
    for name in SETS:
        filters = Path(folder) / name
        packed = sorted(Path(folder).glob(f"{name}_trace*.gz"))
        if not filters.exists() or not packed:
            say(f"acl: {name} or its trace is not in {folder}")
            continue
        trace = directory / f"{name}_trace"
        trace.write_bytes(gzip.decompress(packed[0].read_bytes()))
        found.append(Case(name, filters, trace))
    if quick:
        return found[:1]
    large = [case for case in found if case.name.endswith("_10k")]
    for case in large:
        found.append(Case(case.name, case.filters, case.trace, ["--ipv6"], ", IPv6"))
    for case in large:
        found.append(Case(case.name, case.filters, case.trace, ["--scale", "100000"], ", scaled to 100k"))
    if not found:
        raise Unavailable(f"{folder} has no filter set that we know: {', '.join(SETS)}")
    return found


def measure(comparison, dpdk, case, directory, rounds):
    """DPDK and sgwall in turns."""
    export = directory / "export"
    export.mkdir(exist_ok=True)
    sgwall(case, "--export", export)
    filters, trace = export / "filters", export / "trace"
    way = None
    with guard(comparison, f"DPDK, {case.name}"):
        dpdk.agree(filters, trace, case.ipv6, (export / "ranks").read_text())
        rates = {w: dpdk.try_way(filters, trace, case.ipv6, w) for w in WAYS}
        way = max(rates, key=rates.get)
        comparison.notes[case.name] = {"DPDK": rates, "chosen": way}
    for round_ in range(rounds):
        turns = [("sgwall", None), ("DPDK", way)] if round_ % 2 else [("DPDK", way), ("sgwall", None)]
        for contender, way_ in turns:
            if contender == "sgwall":
                answer = sgwall(case, *([] if round_ == 0 else ["--trace-only"]))
                for key, rate in answer["lookups_per_second"].items():
                    name = "sgwall" if key == "trace" else f"sgwall, {key}"
                    if rate:
                        comparison.add(case.name, name, round_, rate["median"])
                comparison.notes.setdefault(case.name, {})["sgwall"] = {
                    key: answer[key] for key in ("filters", "packets", "checked", "compile_ms", "heap_bytes")
                }
            elif way_:
                with guard(comparison, f"DPDK, {case.name}"):
                    comparison.add(case.name, "DPDK", round_, dpdk.lookups(filters, trace, case.ipv6, way_))


@contextlib.contextmanager
def guard(comparison, contender):
    """What is not available is noted, and the comparison goes on."""
    try:
        yield
    except Unavailable as error:
        comparison.fail(contender, error)


def sgwall(case, *options):
    """Runs our bench; its report. It fails if an answer is wrong, and so do we."""
    command = ["taskset", "-c", core(), hosts.EXAMPLES / "classbench", case.filters, case.trace]
    try:
        return json.loads(call([*map(str, command), *case.options, *map(str, options)], timeout=120))
    except Unavailable as error:
        raise SystemExit(str(error)) from error


class Dpdk:
    """`dpdk-test-acl`, with huge pages if there are any."""

    def __init__(self, comparison):
        pages = int(Path("/proc/sys/vm/nr_hugepages").read_text())
        # Nothing is left in a file system, and none for huge pages need be mounted.
        memory = "--in-memory" if pages >= PAGES else "--no-huge"
        self.eal = [memory, "--no-pci", "--no-telemetry", "-l", core(), "-m", str(MEGABYTES)]
        if pages < PAGES:
            say(f"acl: only {pages} of {PAGES} huge pages: DPDK runs without")
        comparison.parameters["huge_pages"] = pages >= PAGES

    def run(self, filters, trace, ipv6, way, *options):
        """Its output."""
        eal, algorithm = WAYS[way]
        command = ["dpdk-test-acl", *self.eal, *eal, "--", f"--rulesf={filters}", f"--tracef={trace}"]
        # Room for every rule and packet; one category, as there is one verdict.
        command += ["--rulenum=200000", "--tracenum=200000", "--bldcat=1", *algorithm, *options]
        return call(command + (["--ipv6=4B"] if ipv6 else []), timeout=120)

    def lookups(self, filters, trace, ipv6, way):
        """Lookups a second. More verbose, it prints within what it times."""
        packets = sum(1 for _ in open(trace))
        output = self.run(filters, trace, ipv6, way, "--verbose=0", f"--iter={max(1, LOOKUPS // packets)}")
        rate = re.search(r"([\d.]+) pkt/sec", output)
        if not rate:
            raise Unavailable(f"dpdk-test-acl said nothing of packets: {output[-200:]}")
        return float(rate[1])

    def try_way(self, filters, trace, ipv6, way):
        """Lookups a second, or 0 where the processor cannot do it that way."""
        try:
            return self.lookups(filters, trace, ipv6, way)
        except Unavailable:
            if way == "default":
                raise
            return 0.0

    def agree(self, filters, trace, ipv6, ranks):
        """Fails unless it finds the filter that sgwall finds, for every packet."""
        output = self.run(filters, trace, ipv6, "default", "--verbose=2")
        # No match is the largest number of 32 bits.
        found = re.findall(r"result: (\d+)", output)
        theirs = [-1 if int(rank) == 0xFFFF_FFFF else int(rank) for rank in found]
        ours = [int(rank) for rank in ranks.split()]
        if theirs != ours:
            differ = sum(a != b for a, b in zip(theirs, ours))
            raise SystemExit(
                f"DPDK and sgwall differ in {differ} of {len(ours)} packets ({len(theirs)} answers of DPDK)"
            )


def core():
    """The core that both run on: the last one."""
    return str(max(os.sched_getaffinity(0)))
