"""Live paths: contenders take turns under the same clients, each in namespaces of its own."""

import time

from . import contenders, hosts, traffic
from .report import Comparison, Unavailable, say, table

# What is measured: its unit, that unit in what is stored, and how. What leaves many flows behind
# comes last, because they would slow the others down.
MEASURES = {
    "TCP stream": ("Gbit/s", 1e9, traffic.stream),
    "connections": ("k/s", 1e3, traffic.connections),
    "known flows": ("k/s", 1e3, traffic.known_flows),
    "known flows, 2 senders": ("k/s", 1e3, lambda lab, s: traffic.known_flows(lab, s, threads=2)),
    "new flows": ("k/s", 1e3, traffic.new_flows),
    "new flows, 2 senders": ("k/s", 1e3, lambda lab, s: traffic.new_flows(lab, s, threads=2)),
}


def nft(args):
    """nftables with connection tracking, rules one by one and as a set, and sgwall."""
    nftables, sgwall = contenders.Nftables, contenders.Sgwall
    sizes = [50, 1000, 10_000]
    linear = {n: nftables(n, "linear") for n in sizes}
    ours = {n: sgwall(n) for n in sizes}
    largest = sizes[-1]
    as_set, none = nftables(largest, "set"), nftables(0, "none")
    sockets, null = sgwall(largest, packet_sockets=True), contenders.Null()
    pairs = [(ours[n], linear[n]) for n in sizes]
    pairs += [(ours[largest], as_set), (sockets, as_set), (sockets, linear[largest]), (as_set, none)]
    pairs += [(ours[largest], null)]
    everyone = [none, *linear.values(), as_set, null, *ours.values(), sockets]
    compare("nft", ["nftables"], everyone, pairs, [name for name in MEASURES if "flows" in name], args)


def ovs(args):
    """Open vSwitch's userspace datapath with ct(), and sgwall."""
    switch, null, ours = contenders.OpenVswitch(100), contenders.Null(), contenders.Sgwall(100)
    plain = contenders.Sgwall(100, offload=False)
    pairs = [(ours, switch), (plain, switch), (ours, null), (switch, null)]
    packages = ["openvswitch-switch", "iperf3"]
    compare("ovs", packages, [switch, null, ours, plain], pairs, [name for name in MEASURES if "2 senders" not in name], args)


def compare(name, packages, everyone, pairs, measures, args):
    """Measures everyone `rounds` times, in turns; the order is reversed every other round."""
    parameters = {"rounds": args.rounds, "seconds": args.seconds, "mtu": hosts.MTU, "measures": measures}
    comparison = Comparison(name, packages, parameters)
    with hosts.parameters(
        net__netfilter__nf_conntrack_max=hosts.MAX_FLOWS, net__netfilter__nf_conntrack_buckets=1 << 20
    ):
        for round_ in range(args.rounds):
            for contender in everyone if round_ % 2 == 0 else everyone[::-1]:
                say(f"{name}: round {round_ + 1} of {args.rounds}: {contender.name}")
                if contender.name in comparison.failures:
                    continue
                try:
                    measure(comparison, contender, round_, measures, args.seconds)
                except Unavailable as error:
                    comparison.fail(contender.name, error)
    pairs = [(ours.name, peer.name) for ours, peer in pairs]
    answer = comparison.write(args.results, pairs)
    heads = [f"{measure}, {MEASURES[measure][0]}" for measure in measures]
    rows = [[name, *heads]]
    for contender in everyone:
        medians = [comparison.median(measure, contender.name) for measure in measures]
        scales = [MEASURES[measure][1] for measure in measures]
        rows.append([contender.name, *(m and m / scale for m, scale in zip(medians, scales))])
    table(rows)
    rows = [["ratio: median of rounds", *measures]]
    for ours, peer in pairs:
        rows.append([f"{ours} / {peer}", *(comparison.ratio(m, ours, peer) for m in measures)])
    table(rows)
    return answer


def measure(comparison, contender, round_, measures, seconds):
    """One contender, everything once."""
    with hosts.Lab() as lab:
        contender.set_up(lab)
        traffic.listen(lab)
        if contender.filters:
            traffic.filters(lab)
        for name in measures:
            comparison.add(name, contender.name, round_, MEASURES[name][2](lab, seconds))
    # The kernel forgets the namespaces' flows in the background.
    time.sleep(0.3)
