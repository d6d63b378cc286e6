//! A pod's node without a node: containers as values, carried along by the plans made for them. For tests.

use super::plan::{self, Ending, Health, Input, Memory, Plan, Step};
use super::status;
use crate::runtime::{Exit, Record, Role, State};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub struct World {
    pub pod: Pod,
    pub records: Vec<Record>,
    pub memory: Memory,
    pub health: BTreeMap<String, Health>,
    pub ending: Option<Ending>,
    pub now: Timestamp,
    pub said: PodStatus,
    /// Every container that was ever started: name, attempt, sandbox.
    pub started: Vec<(String, u32, String)>,
    next: u32,
}

impl World {
    pub fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            records: Vec::new(),
            memory: Memory::default(),
            health: BTreeMap::new(),
            ending: None,
            now: Timestamp::from_second(1_000_000).unwrap(),
            said: PodStatus::default(),
            started: Vec::new(),
            next: 0,
        }
    }

    pub fn plan(&self) -> Plan {
        plan::plan(&Input {
            pod: &self.pod,
            records: &self.records,
            health: &self.health,
            memory: &self.memory,
            ending: self.ending,
            now: self.now,
        })
    }

    pub fn status(&self, plan: &Plan) -> PodStatus {
        status::status(&status::Input {
            pod: &self.pod,
            last: &self.said,
            records: &self.records,
            health: &self.health,
            memory: &self.memory,
            crash_loops: &plan.crash_loops,
            messages: &BTreeMap::new(),
            image_ids: &BTreeMap::new(),
            ips: &[[10, 1, 0, 5].into()],
            host_ips: &[[192, 0, 2, 1].into()],
            ending: self.ending,
            refusal: None,
            finished: plan.finished,
            now: self.now,
        })
    }

    /// Plans, says, and carries out at most `limit` of the steps.
    pub fn act(&mut self, limit: usize) -> Plan {
        if self.ending.is_none() && super::spec::is_final(&self.said) {
            self.ending = Some(Ending::Finished);
        }
        let plan = self.plan();
        self.said = self.status(&plan);
        for step in plan.steps.iter().take(limit) {
            self.carry_out(step);
        }
        plan
    }

    /// Until nothing is left to do at this time.
    pub fn settle(&mut self) -> Plan {
        for _ in 0..100 {
            let plan = self.act(usize::MAX);
            if plan.steps.is_empty() {
                return plan;
            }
        }
        panic!("plans without end: {:#?}", self.plan().steps);
    }

    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Prepare => self.memory.volumes_ready = true,
            Step::RunSandbox { attempt } => {
                self.memory.attempts.insert(String::new(), attempt + 1);
                let id = self.add(Role::Sandbox, "", *attempt, None, "");
                self.run(&id);
            }
            Step::Network { sandbox } => self.memory.networked = Some(sandbox.clone()),
            Step::Start { name, init, attempt } => self.start(name, *init, *attempt),
            Step::Kill { id, .. } => self.exit(id, 137),
            Step::StopSandbox { id } => self.exit(id, 0),
            Step::Remove { id } => self.records.retain(|r| &r.id != id),
        }
    }

    fn start(&mut self, name: &str, init: bool, attempt: u32) {
        let Some(sandbox) = plan::sandbox(&self.records).filter(|s| s.is_running()).map(|s| s.id.clone()) else {
            return;
        };
        let containers = super::spec::containers(&self.pod);
        let container = containers.map(|(c, _)| c).find(|c| c.name == name).unwrap().clone();
        let last = plan::latest(&self.records, name).cloned();
        plan::note_start(&mut self.memory, &container, last.as_ref(), attempt, self.now);
        let role = if init { Role::Init } else { Role::App };
        let id = self.add(role, name, attempt, Some(&sandbox), &super::spec::hash(&container));
        self.run(&id);
        self.started.push((name.to_owned(), attempt, sandbox));
    }

    fn add(&mut self, role: Role, name: &str, attempt: u32, sandbox: Option<&str>, hash: &str) -> String {
        self.next += 1;
        let id = format!("id-{}", self.next);
        self.records.push(Record {
            id: id.clone(),
            pod_uid: "u".into(),
            pod_namespace: "ns".into(),
            pod_name: "p".into(),
            name: name.into(),
            role,
            attempt,
            spec_hash: hash.into(),
            sandbox: sandbox.unwrap_or(&id).into(),
            image: "i".into(),
            image_id: "sha256:1".into(),
            created_at: self.now,
            state: State::Created,
        });
        id
    }

    /// Made and never started, as an agent leaves it that dies in between.
    pub fn make_only(&mut self, name: &str, init: bool, attempt: u32) {
        let Some(sandbox) = plan::sandbox(&self.records).map(|s| s.id.clone()) else { return };
        self.add(if init { Role::Init } else { Role::App }, name, attempt, Some(&sandbox), "");
    }

    fn run(&mut self, id: &str) {
        let now = self.now;
        if let Some(record) = self.records.iter_mut().find(|r| r.id == id) {
            record.state = State::Running { started_at: now, pid: 1 };
        }
        self.health.insert(id.to_owned(), Health { started: true, ready: true, failed: None });
    }

    pub fn exit(&mut self, id: &str, code: i32) {
        let now = self.now;
        if let Some(record) = self.records.iter_mut().find(|r| r.id == id)
            && let State::Running { started_at, .. } = record.state
        {
            record.state = State::Exited(Exit {
                code,
                reason: if code == 0 { "Completed" } else { "Error" }.into(),
                message: String::new(),
                started_at: Some(started_at),
                finished_at: now,
            });
        }
        self.health.remove(id);
    }

    /// The running container of a name.
    pub fn running(&self, name: &str) -> Option<&Record> {
        self.records.iter().find(|r| r.name == name && r.role != Role::Sandbox && r.is_running())
    }

    pub fn end(&mut self, name: &str, code: i32) {
        let id = self.running(name).unwrap_or_else(|| panic!("{name} doesn't run")).id.clone();
        self.exit(&id, code);
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Another agent comes: it knows what containers tell, and what was said last.
    pub fn restart_agent(&mut self) {
        let plan = self.plan();
        self.said = self.status(&plan);
        self.memory = Memory::remembered(&self.said);
        let running = self.records.iter().filter(|r| r.is_running() && r.role != Role::Sandbox);
        let well = Health { started: true, ready: true, failed: None };
        self.health = running.map(|r| (r.id.clone(), well)).collect();
    }
}
