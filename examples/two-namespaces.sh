#!/usr/bin/env bash
# A firewall between two network namespaces: an instance (10.0.1.10) and the world it is reached
# from (203.0.113.9). Makes both, runs sgwall between them, tries what the policy allows and what it
# refuses, and deletes all that it made. Needs root and iproute2, ping, curl; touches nothing else.
#
#   examples/two-namespaces.sh [path of sgwall]
set -euo pipefail
cd "$(dirname "$0")/.."
sgwall=${1:-target/release/sgwall}
policy=examples/policy.toml

for command in ip ping curl python3 "$sgwall"; do
  command -v "$command" >/dev/null || { echo "$command is missing; it is needed here" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "root is needed, to make network namespaces and TAP interfaces" >&2; exit 1; }

instance=sgwall-instance-$$ world=sgwall-world-$$
tap_i=sgi$$ tap_w=sgw$$
work=$(mktemp -d)
cleanup() {
  trap - EXIT
  for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  ip netns delete "$instance" 2>/dev/null || true
  ip netns delete "$world" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
in_instance() { ip netns exec "$instance" "$@"; }
in_world() { ip netns exec "$world" "$@"; }
step() { printf '\n$ %s\n' "$*"; }

ip netns add "$instance"
ip netns add "$world"

step "sgwall run --policy $policy --interface eni-example --instance $tap_i --network $tap_w"
"$sgwall" run --policy "$policy" --interface eni-example --instance "$tap_i" --network "$tap_w" \
  --control "$work/control" &
for _ in $(seq 100); do [ -S "$work/control" ] && break; sleep 0.1; done
[ -S "$work/control" ] || { echo "the firewall did not start" >&2; exit 1; }

# The ends of the TAP interfaces go to where the instance and the world are.
ip link set "$tap_i" netns "$instance"
ip link set "$tap_w" netns "$world"
in_instance ip link set lo up
in_instance ip address add 10.0.1.10/24 dev "$tap_i"
in_instance ip link set "$tap_i" up
in_instance ip route add default via 10.0.1.1
in_world ip link set lo up
in_world ip address add 10.0.1.1/24 dev "$tap_w"
in_world ip address add 203.0.113.9/32 dev lo
in_world ip link set "$tap_w" up
ip netns exec "$instance" python3 -m http.server 80 --directory examples >/dev/null 2>&1 &
ip netns exec "$instance" python3 -m http.server 22 --directory examples >/dev/null 2>&1 &
for _ in $(seq 50); do in_instance curl -s -o /dev/null http://10.0.1.10/ && break; sleep 0.1; done

step "ping: allowed from everywhere"
in_world ping -c 2 -i 0.2 -W 2 -I 203.0.113.9 10.0.1.10

step "HTTP from the office: allowed"
in_world curl -sS --max-time 5 --interface 203.0.113.9 -o /dev/null -w '%{http_code}\n' http://10.0.1.10/

step "port 22, where something listens: refused"
if in_world curl -sS --max-time 1 --interface 203.0.113.9 -o /dev/null http://10.0.1.10:22/; then
  echo "it was let in" >&2
  exit 1
fi

step "sgwall flows"
"$sgwall" flows --control "$work/control"

step "sgwall stats"
"$sgwall" stats --control "$work/control"
