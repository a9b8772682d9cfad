//! `sgwall run` between real hosts: each test has network namespaces of its own for an instance, the
//! world, and the firewall between them, and asks the running firewall with the real commands.
//!
//! Needs root and Debian's iproute2, iputils-ping, iputils-tracepath, curl, nmap, python3 and
//! util-linux. Where one is missing the tests say so and pass, unless `SGWALL_LIVE=required`.

// Tests of the live firewall look at the clock and at files.
#![allow(clippy::disallowed_methods)]

mod clients;
mod control;
mod example;
mod exchanges;
mod faults;
mod faults_clients;
mod faults_files;
mod flood;
mod flow_log;
mod fragments;
mod guide;
mod http;
mod lab;
mod mtu;
mod neighbours;
mod operations;
mod ping;
mod reload;
mod rights;
mod scan;
mod start;
mod stream;
mod veth;
