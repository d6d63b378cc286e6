//! A host whose `iptables` (or `ip6tables`) drops forwarded packets (Docker and ufw set it so) gets our accept in its own chain: what one
//! chain drops no other chain can save. `DOCKER-USER` is the place that Docker keeps for this; else `FORWARD`.
//!
//! Done by the host's own `iptables` program: only it knows which of the two kernel interfaces its rules live in, and
//! whoever set that policy has used it.

use super::{Error, names};
use nix::sched::{CloneFlags, setns, unshare};
use nlink::netlink::namespace::Netns;
use nlink::netlink::nftables::Family;
use nlink::netlink::{Connection, Nftables};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Makes sure that our packets of a family pass. `Ok(None)`: nothing is in the way; else the chain that has our rules now.
pub async fn accept(host: &Netns, names: &names::Names, family: Family) -> Result<Option<&'static str>, Error> {
    if !has_filter(host, family).await? {
        return Ok(None);
    }
    let Some(listed) = run(host, family, &["-S", "FORWARD"])? else {
        tracing::warn!("the host has iptables rules and no iptables program: forwarded packets may be dropped");
        return Ok(None);
    };
    let Some(chain) = place(&listed) else { return Ok(None) };
    for rule in rules(names) {
        let args = |action: &'static str| -> Vec<String> {
            [action, chain].into_iter().map(String::from).chain(rule.clone()).collect()
        };
        if run(host, family, &args("-C"))?.is_none() && run(host, family, &args("-I"))?.is_none() {
            return Err(Error::Failed(format!("the host's iptables refuses a rule in its chain {chain}")));
        }
    }
    Ok(Some(chain))
}

/// Takes our rules out of all chains they may be in.
pub async fn remove(host: &Netns, names: &names::Names) -> Result<(), Error> {
    for family in [Family::Ip, Family::Ip6] {
        if !has_filter(host, family).await? {
            continue;
        }
        for chain in ["DOCKER-USER", "FORWARD"] {
            for rule in rules(names) {
                let args: Vec<String> = ["-D", chain].into_iter().map(String::from).chain(rule).collect();
                while run(host, family, &args)?.is_some() {}
            }
        }
    }
    Ok(())
}

fn rules(names: &names::Names) -> [Vec<String>; 2] {
    let (uplink, comment) = (names.uplink(), names.table());
    let words = |text: String| text.split(' ').map(String::from).collect();
    [
        words(format!("-i {uplink} -m comment --comment {comment} -j ACCEPT")),
        words(format!(
            "-o {uplink} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment {comment} -j ACCEPT"
        )),
    ]
}

/// Where an accept is needed, by what `iptables -S FORWARD` prints.
fn place(listed: &str) -> Option<&'static str> {
    let has = |line: &str| listed.lines().any(|l| l.trim() == line);
    if has("-A FORWARD -j DOCKER-USER") { Some("DOCKER-USER") } else { has("-P FORWARD DROP").then_some("FORWARD") }
}

/// Whether anybody has made the filter table; asking iptables itself would make it.
async fn has_filter(host: &Netns, family: Family) -> Result<bool, Error> {
    let failed = |e| Error::netlink("look for iptables rules", e);
    let legacy = host.run(|| std::fs::read_to_string(legacy_tables(family))).map_err(failed)?;
    if legacy.is_ok_and(|names| names.lines().any(|n| n == "filter")) {
        return Ok(true);
    }
    let nftables = Connection::<Nftables>::new_in(host).map_err(failed)?;
    Ok(nftables.list_tables_in(family).await.map_err(failed)?.iter().any(|t| t.name == "filter"))
}

fn legacy_tables(family: Family) -> &'static str {
    match family {
        Family::Ip6 => "/proc/thread-self/net/ip6_tables_names",
        _ => "/proc/thread-self/net/ip_tables_names",
    }
}

/// What the host's `iptables` prints; `None` when it fails or isn't there.
fn run<S: AsRef<std::ffi::OsStr> + Sync>(host: &Netns, family: Family, args: &[S]) -> Result<Option<String>, Error> {
    let output = host
        .run(|| {
            enter_hosts_files()?;
            let mut command = Command::new(if family == Family::Ip6 { "ip6tables" } else { "iptables" });
            command.env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin");
            command.args(["-w", "5"]).args(args).output()
        })
        .map_err(|e| Error::netlink("run the host's iptables", e))?;
    match output {
        Ok(output) if output.status.success() => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::Failed(format!("run the host's iptables: {e}"))),
    }
}

/// An agent in a container sees its own files; this thread sees the host's from now on. Where process 1 may not be looked
/// at, the files at hand have to do.
fn enter_hosts_files() -> io::Result<()> {
    let Ok(hosts) = File::open("/proc/1/ns/mnt") else { return Ok(()) };
    if std::fs::metadata("/proc/thread-self/ns/mnt")?.ino() == hosts.metadata()?.ino() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_FS)?;
    setns(hosts, CloneFlags::CLONE_NEWNS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accept_goes_where_docker_asks_for_it_or_where_packets_are_dropped() {
        assert_eq!(place("-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j X\n"), Some("DOCKER-USER"));
        assert_eq!(place("-P FORWARD ACCEPT\n-A FORWARD -j DOCKER-USER\n"), Some("DOCKER-USER"));
        assert_eq!(place("-P FORWARD DROP\n"), Some("FORWARD"));
        assert_eq!(place("-P FORWARD ACCEPT\n-A FORWARD -j ufw\n"), None);
    }
}
