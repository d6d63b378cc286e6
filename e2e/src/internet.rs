//! A small internet of network namespaces: hosts, routers with NATs of all kinds, a public server. Made by `ip` and `nft`,
//! taken away when it is dropped.

use crate::http_proxy;
use crate::wire::wire;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace of its own, with loopback up.
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new(label: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let name = format!("lsm-{}-{}-{label}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name], "");
        let netns = Self { name };
        netns.ip("link set lo up");
        netns
    }

    pub fn file(&self) -> File {
        File::open(format!("/run/netns/{}", self.name)).expect("it can be done")
    }

    /// Lines of `ip`'s commands.
    pub fn ip(&self, lines: &str) {
        run("ip", &["-n", &self.name, "-batch", "-"], lines);
    }

    pub fn nft(&self, script: &str) {
        run("ip", &["netns", "exec", &self.name, "nft", "-f", "-"], script);
    }

    pub fn exec(&self, command: &[&str]) {
        run("ip", &[&["netns", "exec", &self.name], command].concat(), "");
    }

    /// Does something on a thread inside.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        within(self.file(), what)
    }

    pub fn udp(&self, address: &str) -> UdpSocket {
        self.within(|| UdpSocket::bind(address).expect("it can be done"))
    }
}

/// Does something on a thread inside a network namespace.
pub fn within<T: Send>(netns: File, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let done = scope.spawn(move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).expect("it can be entered");
            what()
        });
        done.join().expect("it is done")
    })
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub fn run(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be done");
    child.stdin.take().expect("it can be done").write_all(input.as_bytes()).expect("it can be done");
    let output = child.wait_with_output().expect("it can be done");
    assert!(
        output.status.success(),
        "{program} {arguments:?} {input}: {}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
}

/// A cable between two namespaces.
pub fn cable(a: &Netns, a_name: &str, b: &Netns, b_name: &str) {
    a.ip(&format!("link add {a_name} type veth peer name {b_name} netns {}", b.name));
    a.ip(&format!("link set {a_name} up"));
    b.ip(&format!("link set {b_name} up"));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// The host is on the internet itself.
    None,
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    UdpBlocked,
    /// Nothing gets through; the router is a proxy for HTTP, at [`PROXY`].
    ProxyOnly,
}

/// Where the public server is.
pub const SERVER: &str = "203.0.113.1";
/// Of a site that has nothing else.
pub const PROXY: &str = "192.168.1.1:3128";

fn wan() -> Netns {
    let wan = Netns::new("wan");
    wan.ip("link add wan type bridge\nlink set wan up");
    wan
}

/// 203.0.113.0/24, with a server at .1; sites are at .11 and on.
pub struct Internet {
    wan: Netns,
    server: Option<Netns>,
    sites: u8,
}

impl Internet {
    /// Its server is a namespace of its own.
    pub fn with_server() -> Self {
        let server = Netns::new("server");
        let internet = Self { wan: wan(), server: Some(server), sites: 0 };
        internet.plug(internet.server(), "server", SERVER, Duration::ZERO);
        internet
    }

    /// Its server is this machine.
    pub fn around_this_machine() -> Self {
        let internet = Self { wan: wan(), server: None, sites: 0 };
        let here = format!("lsi{}", std::process::id());
        internet.wan.ip(&format!(
            "link add server type veth peer name {here} netns {}\nlink set server up master wan",
            std::process::id()
        ));
        run("ip", &["-batch", "-"], &format!("addr add {SERVER}/24 dev {here}\nlink set {here} up"));
        internet
    }

    pub fn server(&self) -> &Netns {
        self.server.as_ref().expect("the server is this machine")
    }

    fn plug(&self, netns: &Netns, port: &str, address: &str, away: Duration) {
        match away.is_zero() {
            true => cable(&self.wan, port, netns, "eth0"),
            false => wire(&self.wan, port, netns, "eth0", away),
        }
        self.wan.ip(&format!("link set {port} master wan"));
        netns.ip(&format!("addr add {address}/24 dev eth0"));
    }

    /// A host behind a router with a NAT of this kind.
    pub fn site(&mut self, nat: Nat) -> Site {
        self.site_away(nat, Duration::ZERO)
    }

    /// The same, with what a packet takes to it, and from it.
    pub fn site_away(&mut self, nat: Nat, away: Duration) -> Site {
        self.sites += 1;
        let (port, public) = (format!("s{}", self.sites), format!("203.0.113.{}", 10 + self.sites));
        let host = Netns::new("host");
        if nat == Nat::None {
            self.plug(&host, &port, &public, away);
            return Site { host, router: None, address: public.parse().expect("it can be done"), nat };
        }
        let router = Netns::new("router");
        self.plug(&router, &port, &public, away);
        cable(&router, "lan", &host, "eth0");
        router.ip("addr add 192.168.1.1/24 dev lan");
        host.ip("addr add 192.168.1.2/24 dev eth0\nroute add default via 192.168.1.1");
        router.exec(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        router.nft(&rules(nat));
        if nat == Nat::ProxyOnly {
            router.within(|| http_proxy::serve(PROXY));
        }
        Site { host, router: Some(router), address: "192.168.1.2".parse().expect("it can be done"), nat }
    }

    /// Cuts or restores UDP to and from a site; everything else goes on.
    pub fn cut_udp(&self, site: &Site, cut: bool) {
        let place = site.gate();
        match cut {
            true => place.nft(
                "table ip cut {\nchain in { type filter hook prerouting priority -300; iif eth0 meta l4proto udp drop; }\n\
                 chain out { type filter hook postrouting priority 300; oif eth0 meta l4proto udp drop; }\n}",
            ),
            false => place.nft("delete table ip cut"),
        }
    }

    /// Loses so many percent of what comes to and goes from a site.
    pub fn lose(&self, site: &Site, percent: u8) {
        site.gate().nft(&format!(
            "table ip loss {{\nchain in {{ type filter hook prerouting priority -310; iif eth0 numgen random mod 100 < {percent} drop; }}\n\
             chain out {{ type filter hook postrouting priority 310; oif eth0 numgen random mod 100 < {percent} drop; }}\n}}"
        ));
    }

    pub fn stop_losing(&self, site: &Site) {
        site.gate().nft("delete table ip loss");
    }

    /// Bounds what a site can send: `1gbit`, or as much as there is.
    pub fn narrow(&self, site: &Site, rate: Option<&str>) {
        let place = site.gate();
        match rate {
            Some(rate) => {
                let bucket = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"];
                place.exec(&[&["tc", "qdisc", "add", "dev", "eth0", "root"], &bucket[..]].concat());
            }
            None => place.exec(&["tc", "qdisc", "del", "dev", "eth0", "root"]),
        }
    }

    /// Gives a site another public address in place of the one it has.
    pub fn move_to(&self, site: &Site, public: &str) {
        let place = site.gate();
        place.ip(&format!("addr flush dev eth0\naddr add {public}/24 dev eth0"));
        // What was translated before is of the past.
        place.nft("flush ruleset");
        place.nft(&rules(site.nat));
    }
}

pub struct Site {
    pub host: Netns,
    pub router: Option<Netns>,
    /// Of the host.
    pub address: IpAddr,
    nat: Nat,
}

impl Site {
    /// Where it meets the internet.
    fn gate(&self) -> &Netns {
        self.router.as_ref().unwrap_or(&self.host)
    }
}

fn rules(nat: Nat) -> String {
    // What comes uninvited must leave no trace in the router, as in any real one.
    let mut rules = String::from(
        "table ip nat {\nset seen { type ipv4_addr; flags dynamic, timeout; timeout 2m; }\n\
         chain input { type filter hook input priority 0; iif eth0 meta l4proto udp drop; }\n",
    );
    let behind = "dnat to 192.168.1.2";
    let (forward, before, after) = match nat {
        Nat::None | Nat::PortRestricted => ("", String::new(), "masquerade"),
        Nat::FullCone => ("", format!("iif eth0 meta l4proto udp {behind}"), "masquerade"),
        Nat::AddressRestricted => (
            "iif lan update @seen { ip daddr }",
            format!("iif eth0 ip saddr @seen meta l4proto udp {behind}"),
            "masquerade",
        ),
        Nat::Symmetric => ("", String::new(), "masquerade fully-random"),
        Nat::UdpBlocked => ("meta l4proto udp drop", String::new(), "masquerade"),
        Nat::ProxyOnly => ("drop", String::new(), "masquerade"),
    };
    rules += &format!(
        "chain forward {{ type filter hook forward priority 0; {forward}; }}\n\
         chain before {{ type nat hook prerouting priority -100; {before}; }}\n\
         chain after {{ type nat hook postrouting priority 100; oif eth0 {after}; }}\n}}\n"
    );
    rules.replace("0; ; }", "0; }")
}
