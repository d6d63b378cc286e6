//! A Docker daemon of the test's own: own data, own socket, own bridge, so that it touches no other on the host. (One that
//! is told to have no bridge takes `docker0` away from the daemon beside it.)

use crate::{checkout, eventually};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Docker {
    folder: PathBuf,
    daemon: Child,
    netns: Option<String>,
}

impl Docker {
    /// Starts a daemon with its state in `folder`.
    pub fn start(folder: &Path) -> Self {
        Self::start_in(folder, None)
    }

    /// The same inside a network namespace and with mounts of its own: another machine, as far as these go.
    pub fn start_in(folder: &Path, netns: Option<&str>) -> Self {
        fs::create_dir_all(folder).expect("the daemon's folder");
        let mut docker = Self { folder: folder.into(), daemon: spawn(folder, netns), netns: netns.map(String::from) };
        docker.wait();
        docker
    }

    fn wait(&mut self) {
        eventually("dockerd answers", Duration::from_secs(30), || {
            if let Ok(Some(status)) = self.daemon.try_wait() {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("dockerd ended ({status}); are you root, and is docker.io installed?\n{log}");
            }
            self.try_run(&["version"]).map(drop)
        });
    }

    /// `unix://…`, for `--docker-host`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("docker")
            .args(["--host", &self.host()])
            .args(arguments)
            .output()
            .map_err(|error| format!("docker: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        }
    }

    /// `docker ARGUMENTS…`; what it prints.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
    }

    /// The sample image `longshore/hello`, in the versions `latest`, `v1` and `v2`.
    pub fn make_sample_image(&self) {
        let script = checkout().join("scripts/sample-image");
        let output = Command::new(script).arg(self.host()).output().expect("scripts/sample-image runs");
        assert!(output.status.success(), "sample image: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The containers of pods that run now, pause containers left out: id and name of the container in its pod.
    pub fn pod_containers(&self) -> Vec<(String, String)> {
        let format = "{{.ID}} {{.Label \"io.kubernetes.container.name\"}}";
        let all = self.run(&["ps", "--no-trunc", "--format", format]);
        let pairs = all.lines().filter_map(|line| line.split_once(' '));
        pairs
            .filter(|(_, name)| !name.is_empty() && *name != "POD")
            .map(|(id, name)| (id.into(), name.into()))
            .collect()
    }

    /// The network namespace of a pod that runs, as a file.
    pub fn netns_of(&self, pod: &str) -> PathBuf {
        let sandbox = self.run(&["ps", "-q", "--no-trunc", "--filter", &format!("name=k8s_POD_{pod}_")]);
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", &sandbox]);
        PathBuf::from(format!("/proc/{pid}/ns/net"))
    }

    /// Kills the daemon as a crash would (SIGKILL), with its containerd and its containers, as on a machine that lost its
    /// power. Then starts it again on the same state.
    pub fn kill_and_restart(&mut self) {
        self.stop(true);
        self.daemon = spawn(&self.folder, self.netns.as_deref());
        self.wait();
    }

    fn stop(&mut self, crash: bool) {
        if !crash {
            let all = self.try_run(&["ps", "-aq"]).unwrap_or_default();
            let ids: Vec<&str> = all.lines().collect();
            if !ids.is_empty() {
                let _ = self.try_run(&[&["rm", "-f"], &ids[..]].concat());
            }
        }
        let running = self.try_run(&["ps", "-q"]).unwrap_or_default();
        let pids = running.lines().filter_map(|id| self.try_run(&["inspect", "--format", "{{.State.Pid}}", id]).ok());
        let pids: Vec<String> = pids.filter(|pid| pid != "0").collect();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Containers don't die with what watches over them.
        for pid in pids {
            let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
        }
        // What it started itself, known by its folder on the command line.
        let ours = self.folder.join("exec");
        eventually("dockerd's children end", Duration::from_secs(20), || {
            let left = processes_naming(&ours);
            for pid in &left {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
            }
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        // A killed process that nobody has reaped yet would be taken for a daemon that runs.
        for name in ["pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.stop(false);
        if self.netns.is_none() {
            let _ = Command::new("ip").args(["link", "delete", &bridge(&self.folder)]).stderr(Stdio::null()).status();
        }
        for mount in mounts_below(&self.folder) {
            let _ = Command::new("umount").args(["-l", &mount]).stderr(Stdio::null()).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The name of the bridge of the daemon in `folder`; no pod is ever on it.
fn bridge(folder: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("lsd{:08x}", hasher.finish() as u32)
}

/// Makes the bridge where it isn't there yet.
fn make_bridge(name: &str) {
    if Path::new("/sys/class/net").join(name).exists() {
        return;
    }
    // Of a range for documentation: dockerd wants an address, nobody else does.
    for arguments in
        [&["link", "add", name, "type", "bridge"][..], &["address", "add", "198.51.100.1/30", "dev", name][..]]
    {
        let made = Command::new("ip").args(arguments).status().expect("ip runs: install iproute2");
        assert!(made.success(), "ip {arguments:?}");
    }
}

fn spawn(folder: &Path, netns: Option<&str>) -> Child {
    let log = File::create(folder.join("log")).expect("the daemon's log");
    let again = log.try_clone().expect("the daemon's log");
    let mut command = match netns {
        Some(name) => {
            // Not by `ip netns exec`, which hides the host's control groups.
            let mut command = Command::new("unshare");
            let network = format!("--net=/var/run/netns/{name}");
            command.args(["--mount", "--propagation", "slave", "nsenter", &network, "dockerd"]);
            command
        }
        None => Command::new("dockerd"),
    };
    let at = |name: &str| folder.join(name).display().to_string();
    let bridge = match netns {
        Some(_) => "none".to_string(),
        None => bridge(folder),
    };
    if netns.is_none() {
        make_bridge(&bridge);
    }
    command
        .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
        .args(["--host", &format!("unix://{}", at("docker.sock"))])
        .args(["--bridge", &bridge, "--iptables=false", "--ip-masq=false", "--log-level=warn"])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .spawn()
        .expect("dockerd starts: install docker.io")
}

fn processes_naming(folder: &Path) -> Vec<u32> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(needle.len().max(1)).any(|window| window == needle)
        })
        .collect()
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let prefix = folder.display().to_string();
    let mut found: Vec<String> =
        text.lines().filter_map(|l| l.split(' ').nth(1)).filter(|m| m.starts_with(&prefix)).map(String::from).collect();
    found.reverse();
    found
}
