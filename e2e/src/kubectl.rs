//! Unchanged kubectl against an installation.

use crate::eventually;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

#[derive(Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    program: PathBuf,
}

impl Kubectl {
    pub fn new(kubeconfig: PathBuf) -> Self {
        let tools = std::env::var("LONGSHORE_TOOLS").map(PathBuf::from).unwrap_or_default();
        let ours = tools.join("bin/kubectl");
        let program = if ours.exists() { ours } else { PathBuf::from("kubectl") };
        Self { kubeconfig, program }
    }

    /// Where the program itself lies.
    pub fn program(&self) -> PathBuf {
        let found = match self.program.is_absolute() {
            true => Some(self.program.clone()),
            false => std::env::var_os("PATH")
                .and_then(|path| std::env::split_paths(&path).map(|d| d.join(&self.program)).find(|p| p.exists())),
        };
        found.and_then(|p| p.canonicalize().ok()).expect("kubectl is there: scripts/kubectl fetches it")
    }

    /// The command, for those who want to drive it themselves.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Its cache of discovery lies in the home folder by default: tests must not share it.
        let cache = self.kubeconfig.with_file_name("kubectl-cache");
        command.env("KUBECONFIG", &self.kubeconfig).arg("--cache-dir").arg(cache).args(arguments);
        command
    }

    fn output(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts: scripts/kubectl fetches it");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("kubectl reads its input");
        child.wait_with_output().expect("kubectl ends")
    }

    /// What it prints, or what it complains.
    pub fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        self.try_run_with(arguments, "")
    }

    pub fn try_run_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let output = self.output(arguments, input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{}{}", text(&output.stdout), text(&output.stderr))),
        }
    }

    /// What a shell in a pod prints. `pod`: its name, and its namespace's where that is another one.
    pub fn shell(&self, pod: &[&str], command: &str) -> Result<String, String> {
        self.try_run(&[&["exec"], pod, &["--", "sh", "-c", command]].concat())
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
    }

    /// With `-f -`.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> String {
        self.try_run_with(&["apply", "-f", "-"], yaml).unwrap_or_else(|error| panic!("kubectl apply: {error}"))
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    #[track_caller]
    pub fn wait_node_ready(&self, name: &str) {
        eventually(&format!("node {name} is Ready"), Duration::from_secs(60), || {
            let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            let status = self.try_run(&["get", "node", name, "-o", path])?;
            if status == "True" { Ok(()) } else { Err(format!("Ready is {status:?}")) }
        });
    }

    /// Pods that match a selector.
    #[track_caller]
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        let list = self.json(&["get", "pods", "-l", selector]);
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until exactly `count` pods match, all of them Ready and none terminating; those pods.
    #[track_caller]
    pub fn wait_ready_pods(&self, selector: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} ready pods of {selector}"), Duration::from_secs(90), || {
            let pods = self.pods(selector);
            let good = pods.len() == count && pods.iter().all(is_ready);
            let seen = || self.try_run(&["get", "pods", "-o", "wide"]).unwrap_or_else(|e| e);
            if good { Ok(pods) } else { Err(seen()) }
        })
    }
}

/// Running, Ready, and not on its way out.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// `docker://…` of each container, in the pods' order.
pub fn container_ids(pods: &[Value]) -> Vec<String> {
    let statuses = pods.iter().flat_map(|p| p["status"]["containerStatuses"].as_array().cloned().unwrap_or_default());
    statuses
        .filter_map(|s| s["containerID"].as_str().map(|id| id.trim_start_matches("docker://").to_string()))
        .collect()
}
