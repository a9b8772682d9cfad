"""What can be in the middle. Each makes a lab ready for traffic: rules in force, devices c and s in
client and server."""

from . import hosts
from .hosts import (
    CLIENT, CLIENT_ROUTER, MAX_FLOWS, MTU, PORT, SERVER, SERVER_ROUTER, SOURCES, wait_for
)


def rules(n):
    """`n` rules, as (prefix, protocol, first port, last port). The first ones match nothing that is
    sent; the last but one admits the datagrams, the last one the client."""
    others = [
        (f"198.{18 + i // 256 % 2}.{i % 256}.0/24", "udp", 1000 + i // 512, 1000 + i // 512)
        for i in range(n - 2)
    ]
    return others + [(f"{SOURCES}/16", "udp", PORT, PORT), (f"{CLIENT}/32", "all", 0, 65535)]


class Sgwall:
    """sgwall between two TAP interfaces, or on packet sockets."""

    filters = True

    def __init__(self, n, packet_sockets=False, offload=True):
        self.n, self.packet_sockets, self.offload = n, packet_sockets, offload
        where = "veth" if packet_sockets else "TAP"
        self.name = f"sgwall, {where}, {n} rules" + ("" if offload else ", no offload")

    def policy(self):
        """The rules as a security group of the server."""
        lines = [
            f'  {{ protocol = "{protocol}", cidr = "{prefix}"'
            + ("" if protocol == "all" else f', ports = "{first}-{last}"') + " },"
            for prefix, protocol, first, last in rules(self.n)
        ]
        ports = ""
        if self.packet_sockets:
            ports = "".join(
                f'[[port]]\ndevice = "{device}"\nkind = "existing"\n{interface}\n'
                for device, interface in (("ms", 'interface = "eni-server"'), ("mc", ""))
            )
        limits = f"rules_per_group = {self.n}\nrules_per_interface = {5 * self.n}"
        return f"""version = 1
[limits]
{limits}
[[vpc]]
id = "vpc-peers"
cidrs = ["10.99.0.0/16"]
[[subnet]]
id = "subnet-server"
vpc = "vpc-peers"
cidrs = ["10.99.1.0/24"]
[[security_group]]
id = "sg-server"
ingress = [
{chr(10).join(lines)}
]
[[interface]]
id = "eni-server"
subnet = "subnet-server"
addresses = ["{SERVER}"]
security_groups = ["sg-server"]
{ports}"""

    def set_up(self, lab):
        """Makes the lab ready."""
        policy, control = lab.directory / "policy.toml", lab.directory / "control"
        policy.write_text(self.policy())
        command = [hosts.SGWALL, "run", "--policy", policy, "--control", control]
        command += ["--max-flows", MAX_FLOWS]
        if self.packet_sockets:
            lab.veth()
        else:
            command += ["--interface", "eni-server", "--instance", "s", "--network", "c", "--mtu", MTU]
        if not self.offload:
            command.append("--no-offload")
        child = lab.start(lab.middle, command)
        wait_for(control.exists, "sgwall run", child)
        if not self.packet_sockets:
            lab.hand_over()
        lab.wire()


class Null:
    """The forwarder that does nothing, between two TAP interfaces."""

    name = "null forwarder, TAP"
    filters = False

    def set_up(self, lab):
        """Makes the lab ready."""
        child = lab.start(lab.middle, [hosts.EXAMPLES / "forward", "c", "s", "--mtu", MTU])
        there = lambda: {"c", "s"} <= devices(lab)
        wait_for(there, "the forwarder", child)
        lab.hand_over()
        lab.wire()


class Nftables:
    """Linux routes between two veth pairs, with connection tracking: rules one after the other, a
    set, or none."""

    def __init__(self, n, kind):
        self.n, self.kind = n, kind
        self.filters = kind != "none"
        self.name = f"nftables, {n} rules {kind}" if self.filters else "Linux routing, no rules"

    def ruleset(self):
        """The text for `nft -f`."""
        if self.kind == "linear":
            accept = [
                f"ip saddr {prefix} accept" if protocol == "all"
                else f"ip saddr {prefix} {protocol} dport {first} accept"
                for prefix, protocol, first, _ in rules(self.n)
            ]
            table = ""
        else:
            elements = ",\n".join(
                f"{prefix} . {first}" for prefix, protocol, first, _ in rules(self.n) if protocol == "udp"
            )
            table = (
                "set allowed { type ipv4_addr . inet_service; flags interval; elements = {\n"
                f"{elements} }} }}\n"
            )
            accept = ["ip saddr . udp dport @allowed accept", f"ip saddr {CLIENT} accept"]
        lines = "\n".join(accept)
        return f"""table ip peers {{
{table}chain forward {{
type filter hook forward priority 0; policy drop;
ct state established,related accept
ip saddr {SERVER} accept
{lines}
}}
}}
"""

    def set_up(self, lab):
        """Makes the lab ready."""
        lab.veth()
        lab.ip(lab.middle, f"address add {CLIENT_ROUTER}/24 dev mc")
        lab.ip(lab.middle, f"address add {SERVER_ROUTER}/24 dev ms")
        lab.write(lab.middle, "net/ipv4/ip_forward", 1)
        lab.join(f"{CLIENT}/24", f"{SERVER}/24")
        lab.ip(lab.client, f"route add default via {CLIENT_ROUTER}")
        lab.ip(lab.server, f"route add default via {SERVER_ROUTER}")
        lab.ip(lab.middle, f"route add {SOURCES}/16 via {CLIENT}")
        ends = ((lab.client, "c", CLIENT, CLIENT_ROUTER), (lab.server, "s", SERVER, SERVER_ROUTER))
        lab.next_hop = {}
        for name, device, address, router in ends:
            mac = lab.mac(lab.middle, f"m{device}")
            lab.next_hop[device] = mac
            lab.neighbour(name, device, router, mac)
            lab.neighbour(lab.middle, f"m{device}", address, lab.mac(name, device))
        if self.filters:
            path = lab.directory / "ruleset"
            path.write_text(self.ruleset())
            lab.inside(lab.middle, ["nft", "-f", path], timeout=60)


class OpenVswitch:
    """Open vSwitch's userspace datapath with connection tracking, between two TAP interfaces."""

    filters = True

    def __init__(self, n):
        self.n = n
        self.name = f"Open vSwitch, TAP, {n} rules"

    def flows(self):
        """The OpenFlow rules: 1 is the client's port, 2 the server's."""
        known = "table=1,priority=200,ip,ct_state=+trk+est"
        lines = [
            "table=0,priority=10,arp,in_port=1,actions=output:2",
            "table=0,priority=10,arp,in_port=2,actions=output:1",
            "table=0,priority=10,ip,actions=ct(table=1)",
            "table=0,priority=0,actions=drop",
            f"{known},in_port=1,actions=output:2",
            f"{known},in_port=2,actions=output:1",
            "table=1,priority=200,ip,ct_state=+trk+rel,in_port=1,actions=output:2",
            "table=1,priority=200,ip,ct_state=+trk+rel,in_port=2,actions=output:1",
            "table=1,priority=100,ip,ct_state=+trk+new,in_port=2,actions=ct(commit),output:1",
            "table=1,priority=0,actions=drop",
        ]
        for prefix, protocol, first, _ in rules(self.n):
            match = "ip" if protocol == "all" else f"{protocol},tp_dst={first}"
            lines.append(
                f"table=1,priority=100,ct_state=+trk+new,in_port=1,{match},nw_src={prefix},"
                "actions=ct(commit),output:2"
            )
        return "\n".join(lines) + "\n"

    def set_up(self, lab):
        """Makes the lab ready, with a database and a switch of its own."""
        directory = lab.directory
        environment = {"OVS_RUNDIR": str(directory), "OVS_LOGDIR": str(directory), "OVS_DBDIR": str(directory)}
        environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        database, socket = directory / "conf.db", directory / "db.sock"

        def ovs(*command):
            return lab.inside(lab.middle, command, env=environment)

        ovs("ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema")
        server = lab.start(
            lab.middle, ["ovsdb-server", database, f"--remote=punix:{socket}"], env=environment
        )
        wait_for(socket.exists, "ovsdb-server", server)
        ovs("ovs-vsctl", f"--db=unix:{socket}", "--no-wait", "init")
        switch = lab.start(
            lab.middle, ["ovs-vswitchd", f"unix:{socket}", f"--unixctl={directory}/switch.ctl"], env=environment
        )
        wait_for((directory / "switch.ctl").exists, "ovs-vswitchd", switch)
        words = f"--db=unix:{socket} --timeout=15 add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure"
        for k, device in ((1, "c"), (2, "s")):
            words += f" -- add-port br0 {device} -- set interface {device} type=internal ofport_request={k}"
        ovs("ovs-vsctl", *words.split())
        there = lambda: {"c", "s"} <= devices(lab)
        wait_for(there, "the ports of Open vSwitch", switch)
        flows = directory / "flows"
        flows.write_text(self.flows())
        ovs("ovs-ofctl", "add-flows", f"unix:{directory}/br0.mgmt", flows)
        ovs("ovs-appctl", "-t", directory / "switch.ctl", "dpctl/ct-set-maxconns", str(MAX_FLOWS - 1))
        lab.hand_over()
        lab.wire()


def devices(lab):
    """Names of the middle's devices."""
    lines = lab.ip(lab.middle, "-o link show").splitlines()
    return {line.split(": ")[1].split("@")[0] for line in lines}
