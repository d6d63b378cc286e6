//! The rows: what is measured, in which unit, and what it should be.

/// What a row should reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Ours over the peer's: at least so much, and what we aim at.
    Times {
        least: f64,
        aim: Option<f64>,
    },
    /// The same, where less is better.
    Part {
        most: f64,
        aim: Option<f64>,
    },
    /// Ours alone.
    AtMost(f64),
    AtLeast(f64),
    /// Told without a goal.
    None,
}

pub struct Row {
    pub id: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub goal: Goal,
    /// The null server can do it, too: the share of its figure is told.
    pub ceiling: bool,
}

const fn row(id: &'static str, title: &'static str, unit: &'static str, goal: Goal) -> Row {
    Row { id, title, unit, goal, ceiling: false }
}

const fn under_ceiling(id: &'static str, title: &'static str, unit: &'static str, goal: Goal) -> Row {
    Row { id, title, unit, goal, ceiling: true }
}

const fn times(least: f64, aim: f64) -> Goal {
    Goal::Times { least, aim: Some(aim) }
}

pub const ROWS: &[Row] = &[
    under_ceiling("create-256", "ConfigMap creates, 256 clients", "/s", times(4.0, 8.0)),
    under_ceiling("create-1", "one client's create, p50", "ms", Goal::Part { most: 0.7, aim: Some(0.5) }),
    under_ceiling("list", "lists of 5,000 ConfigMaps, 8 clients", "/s", times(4.0, 8.0)),
    under_ceiling("watch-p50", "200 watchers × 500 creates: delivery p50", "ms", Goal::Part { most: 0.5, aim: None }),
    under_ceiling("watch-p99", "… delivery p99", "ms", Goal::Part { most: 0.5, aim: None }),
    under_ceiling("watch-events", "… events", "/s", Goal::Times { least: 2.0, aim: None }),
    row("pods", "pods created and bound on 1,000 nodes", "/s", times(10.0, 30.0)),
    row("memory", "memory after all that (PSS, all processes)", "MB", Goal::Part { most: 0.25, aim: None }),
    row("idle-memory", "idle server, one cluster: resident memory", "MB", Goal::AtMost(60.0)),
    row("tenant-create", "creating a tenant's cluster, p99", "ms", Goal::AtMost(100.0)),
    row("tenant-wake", "waking a tenant's cluster, p99", "ms", Goal::AtMost(200.0)),
    row("tenants-busy", "creates by 2,000 tenants, a client each", "/s", Goal::AtLeast(5_000.0)),
    row("tenants-idle-start", "start-up with 10,000 idle tenants", "s", Goal::AtMost(2.0)),
    row("tenants-idle-memory", "… memory they add", "MB", Goal::AtMost(20.0)),
    row("tenants-idle-cpu", "… CPU of the idle server", "%", Goal::None),
    row("scheduler", "scheduler: spread + anti-affinity, 1,000 nodes", "/s", Goal::AtLeast(2_000.0)),
    row("scheduler-growth", "… time for twice the nodes over once", "×", Goal::AtMost(2.0)),
    row("deployment-ready", "1,000 replicas on 100 nodes: all Ready", "s", Goal::AtMost(2.0)),
    row("endpoint-change", "a pod's readiness known on 100 nodes, p99", "ms", Goal::AtMost(500.0)),
    row("nodes-memory", "1,000 connected nodes: memory they add", "MB", Goal::AtMost(150.0)),
    row("nodes-cpu", "… CPU of the idle server", "%", Goal::AtMost(5.0)),
    row("node-tenants-memory", "10,000 tenants, a node each: memory", "MB", Goal::AtMost(1500.0)),
    row("node-tenants-cpu", "… CPU of the idle server", "%", Goal::AtMost(20.0)),
    row("mesh-throughput", "TCP pod to pod over the mesh (wireguard-go)", "Gb/s", times(2.0, 4.0)),
    row("mesh-latency", "… latency it adds, one way", "ms", Goal::AtMost(0.1)),
    row("mesh-relay", "… over the server (a TLS WebSocket)", "Gb/s", Goal::Times { least: 0.5, aim: None }),
    row("mesh-relay-passed", "… (one that a server passes on)", "Gb/s", Goal::Times { least: 0.5, aim: None }),
    row("mesh-relay-line", "… from a line of 1 Gb/s (a TLS WebSocket)", "Gb/s", Goal::Times { least: 0.5, aim: None }),
    row("service-10", "connecting to one of 10 Services (to its pod)", "ms", Goal::Part { most: 1.1, aim: None }),
    row("service-10000", "… of 10,000", "ms", Goal::Part { most: 1.1, aim: None }),
    row("dns", "names answered by a node, per core", "/s", Goal::AtLeast(50_000.0)),
    row(
        "edge",
        "requests through the server's edge, 64 clients (nginx)",
        "/s",
        Goal::Times { least: 0.667, aim: None },
    ),
    row("edge-node", "… through the edge of the pod's own node", "/s", Goal::Times { least: 0.667, aim: None }),
    row("history-tenfold", "update p50 at 10× history over 1×", "×", Goal::AtMost(1.1)),
];

pub fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id == id)
}
