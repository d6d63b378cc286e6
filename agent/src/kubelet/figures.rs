//! `/stats/summary` and `/metrics/resource`: what pods and the node use, as counters.
//!
//! Figures are read when they are asked for; nothing is sampled meanwhile, so there are no rates, only what a client
//! (`metrics-server`, a scraper) makes rates of.

use super::{Body, typed};
use crate::node::context::Context;
use crate::pods::{plan, spec};
use crate::runtime::{Record, State, Usage};
use futures::StreamExt;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fmt::Write;

/// How many containers are asked for their figures at the same time.
const PARALLEL: usize = 8;
/// The kernel counts processor time in these: hundredths of a second on every architecture we run on.
const TICK_NANOSECONDS: u64 = 10_000_000;

struct Figures {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    started: Timestamp,
    usage: Usage,
}

async fn containers(context: &Context) -> Vec<Figures> {
    let Ok(records) = context.runtime.containers(None).await else { return Vec::new() };
    let running = newest(context, &records);
    let asked = futures::stream::iter(running).map(|record| async move {
        let State::Running { started_at, .. } = record.state else { return None };
        let usage = context.runtime.usage(&record.id).await.ok()?;
        Some(Figures {
            namespace: record.pod_namespace,
            pod: record.pod_name,
            uid: record.pod_uid,
            container: record.name,
            started: started_at,
            usage,
        })
    });
    asked.buffered(PARALLEL).filter_map(|found| async { found }).collect().await
}

/// Of each container of a pod the one that counts.
fn newest(context: &Context, records: &[Record]) -> Vec<Record> {
    let mut newest = Vec::new();
    for known in context.pods.all() {
        let of_pod: Vec<Record> = records.iter().filter(|r| r.pod_uid == spec::uid(&known.pod)).cloned().collect();
        newest.extend(spec::containers(&known.pod).filter_map(|(c, _)| plan::latest(&of_pod, &c.name).cloned()));
    }
    newest
}

/// The machine's: processor time since its start, memory in use without what could be given back.
fn node() -> Usage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/stat");
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).sum();
    let memory = read("/proc/meminfo");
    let kilobytes = |name: &str| {
        let line = memory.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let total = kilobytes("MemTotal:").unwrap_or(0);
    let used = |left: Option<u64>| total.saturating_sub(left.unwrap_or(total)) * 1024;
    Usage {
        cpu_nanoseconds: busy * TICK_NANOSECONDS,
        memory_bytes: used(kilobytes("MemFree:")),
        working_set_bytes: used(kilobytes("MemAvailable:")),
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Figures>) -> Usage {
    all.fold(Usage::default(), |sum, f| Usage {
        cpu_nanoseconds: sum.cpu_nanoseconds + f.usage.cpu_nanoseconds,
        memory_bytes: sum.memory_bytes + f.usage.memory_bytes,
        working_set_bytes: sum.working_set_bytes + f.usage.working_set_bytes,
    })
}

/// Figures by pod, in the order in which the pods come.
fn by_pod(figures: &[Figures]) -> Vec<&[Figures]> {
    figures.chunk_by(|a, b| a.uid == b.uid).collect()
}

pub async fn summary(context: &Context) -> Value {
    let figures = containers(context).await;
    let now = seconds(Timestamp::now());
    let amounts = |usage: &Usage| {
        let cpu = json!({"time": now, "usageCoreNanoSeconds": usage.cpu_nanoseconds});
        let memory = json!({"time": now, "usageBytes": usage.memory_bytes, "workingSetBytes": usage.working_set_bytes});
        (cpu, memory)
    };
    let pods: Vec<Value> = by_pod(&figures)
        .into_iter()
        .map(|of_pod| {
            let containers: Vec<Value> = of_pod
                .iter()
                .map(|f| {
                    let (cpu, memory) = amounts(&f.usage);
                    json!({"name": f.container, "startTime": seconds(f.started), "cpu": cpu, "memory": memory})
                })
                .collect();
            let (cpu, memory) = amounts(&sum(of_pod.iter()));
            let first = &of_pod[0];
            let started = of_pod.iter().map(|f| f.started).min().unwrap_or(first.started);
            json!({
                "podRef": {"name": first.pod, "namespace": first.namespace, "uid": first.uid},
                "startTime": seconds(started), "containers": containers, "cpu": cpu, "memory": memory,
            })
        })
        .collect();
    let (cpu, memory) = amounts(&node());
    let booted = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = booted.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok());
    let booted = booted.and_then(|s| Timestamp::from_second(s).ok()).map(seconds);
    json!({"node": {"nodeName": context.name, "startTime": booted, "cpu": cpu, "memory": memory}, "pods": pods})
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub async fn metrics(context: &Context) -> Response<Body> {
    let text = exposition(&containers(context).await, &node());
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn exposition(figures: &[Figures], node: &Usage) -> String {
    let cpu = |usage: &Usage| usage.cpu_nanoseconds as f64 / 1e9;
    let memory = |usage: &Usage| usage.working_set_bytes as f64;
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
        if !samples.is_empty() {
            let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        }
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    // Names are DNS labels: nothing in them needs escaping.
    let of = |f: &Figures| format!("{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}", f.container, f.namespace, f.pod);
    let each = |value: &dyn Fn(&Figures) -> f64| figures.iter().map(|f| (of(f), value(f))).collect::<Vec<_>>();
    let pods = |value: &dyn Fn(&Usage) -> f64| {
        let pods = by_pod(figures).into_iter();
        pods.map(|of_pod| {
            let labels = format!("{{namespace=\"{}\",pod=\"{}\"}}", of_pod[0].namespace, of_pod[0].pod);
            (labels, value(&sum(of_pod.iter())))
        })
        .collect::<Vec<_>>()
    };
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        each(&|f| cpu(&f.usage)),
    );
    family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        each(&|f| memory(&f.usage)),
    );
    family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        each(&|f| f.started.as_second() as f64),
    );
    let whole = |value: f64| vec![(String::new(), value)];
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        whole(cpu(node)),
    );
    family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes", whole(memory(node)));
    family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
        pods(&cpu),
    );
    family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", pods(&memory));
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        whole(0.0),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_add_up_a_pods_containers() {
        let one = |pod: &str, container: &str, cpu: u64| Figures {
            namespace: "ns".into(),
            pod: pod.into(),
            uid: pod.into(),
            container: container.into(),
            started: Timestamp::from_second(1_700_000_000).unwrap(),
            usage: Usage { cpu_nanoseconds: cpu * 1_000_000_000, memory_bytes: 20, working_set_bytes: 10 },
        };
        let text = exposition(&[one("a", "x", 1), one("a", "y", 2), one("b", "x", 4)], &Usage::default());
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"y\",namespace=\"ns\",pod=\"a\"} 2",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"a\"} 3",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"b\"} 10",
            "container_start_time_seconds{container=\"x\",namespace=\"ns\",pod=\"b\"} 1700000000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_machine_has_figures() {
        let node = node();
        assert!(node.cpu_nanoseconds > 0 && node.working_set_bytes > 0, "{node:?}");
    }
}
