//! What processes cost, as the kernel counts it: CPU time and memory of groups of them.
//!
//! Memory is the proportional set size: a page that several processes share (Postgres's buffers) counts once.

use crate::Result;
use std::collections::BTreeMap;
use std::fs;

/// Processes by what they are: `server`, `postgres`; `kube-apiserver`, `etcd`…
#[derive(Clone, Debug, Default)]
pub struct Groups(pub Vec<(String, Vec<u32>)>);

/// CPU seconds (user and system) of each group, and of this process as `load`.
#[derive(Clone, Debug, Default)]
pub struct Cpu(BTreeMap<String, f64>);

impl Groups {
    pub fn cpu(&self) -> Cpu {
        let mut all = BTreeMap::new();
        for (name, roots) in &self.0 {
            let seconds: f64 = family(roots).iter().filter_map(|pid| Stat::of(*pid)).map(|s| s.seconds).sum();
            all.insert(name.clone(), seconds);
        }
        all.insert("load".into(), Stat::of(std::process::id()).map_or(0.0, |s| s.seconds));
        Cpu(all)
    }

    /// Proportional set size in megabytes, by group.
    pub fn memory(&self) -> Result<BTreeMap<String, f64>> {
        let mut all = BTreeMap::new();
        for (name, roots) in &self.0 {
            let mut kilobytes = 0;
            for pid in family(roots) {
                // A process may end while it is looked at.
                kilobytes += field(pid, "smaps_rollup", "Pss:").unwrap_or(0);
            }
            all.insert(name.clone(), kilobytes as f64 / 1000.0);
        }
        Ok(all)
    }
}

impl Cpu {
    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        let spent = |(name, now): (&String, &f64)| (name.clone(), now - before.0.get(name).unwrap_or(&0.0));
        self.0.iter().map(spent).collect()
    }
}

/// Resident memory of one process, in megabytes.
pub fn resident(pid: u32) -> Result<f64> {
    let kilobytes = field(pid, "status", "VmRSS:").ok_or_else(|| format!("process {pid} is gone"))?;
    Ok(kilobytes as f64 / 1000.0)
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| Stat::of(*pid).is_some_and(|s| s.parent == parent)).collect()
}

/// The processes and their children (one level: Postgres's own).
fn family(roots: &[u32]) -> Vec<u32> {
    let children = roots.iter().filter(|pid| name(**pid).starts_with("postgres")).flat_map(|pid| children(*pid));
    roots.iter().copied().chain(children).collect()
}

/// Whether the process is there and no zombie.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_string()
}

fn field(pid: u32, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

struct Stat {
    parent: u32,
    /// Its own and that of its children that ended.
    seconds: f64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, so fields are counted from its closing bracket.
        let rest: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| rest.get(at).and_then(|n| n.parse::<u64>().ok());
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Some(Self { parent: number(1)? as u32, seconds: ticks as f64 / per_second as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_its_parent_knows_it() {
        let me = std::process::id();
        assert!(resident(me).unwrap() > 0.5);
        let parent = Stat::of(me).unwrap().parent;
        assert!(children(parent).contains(&me));
        let groups = Groups(vec![("me".into(), vec![me])]);
        assert!(groups.memory().unwrap()["me"] > 0.1);
        let before = groups.cpu();
        let mut sum = 0u64;
        while groups.cpu().since(&before)["me"] < 0.02 {
            sum = (0..100_000).fold(sum, |a, b| a.wrapping_mul(31).wrapping_add(b));
        }
        assert!(groups.cpu().since(&before)["load"] >= 0.02, "{sum}");
    }
}
