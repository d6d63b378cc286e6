//! Exec and attach: streams to a process in a container, or to its first one.

use super::{Docker, error, hijack};
use crate::runtime::{Answer, ExecSpec, RuntimeError, Session, SessionControl};
use bollard::models::ExecInspectResponse;
use futures::FutureExt;
use futures::future::BoxFuture;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

/// Output can end a moment before Docker has noted the exit code.
const EXIT_CODE_WITHIN: Duration = Duration::from_secs(5);
/// A command of which nobody wants to hear any more is ended as soon as Docker says which process it is.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// Docker tells nobody when an exec changes: it has to be asked again.
const AGAIN: Duration = Duration::from_millis(20);

pub async fn exec(docker: &Docker, container: &str, spec: &ExecSpec) -> Result<Session, RuntimeError> {
    let config = bollard::models::ExecConfig {
        attach_stdin: Some(spec.stdin),
        attach_stdout: Some(spec.stdout),
        attach_stderr: Some(spec.stderr && !spec.tty),
        tty: Some(spec.tty),
        cmd: Some(spec.command.clone()),
        ..Default::default()
    };
    let id = docker.api().await?.create_exec(container, config).await.map_err(error)?.id;
    let path = docker.path(&format!("/exec/{id}/start")).await?;
    let body = serde_json::json!({ "Detach": false, "Tty": spec.tty }).to_string().into_bytes();
    let (stdin, output) = hijack::upgrade(&docker.inner.socket, &path, body, spec.tty).await?;
    Ok(Session { stdin, output, control: Box::new(ExecControl { docker: docker.clone(), id }) })
}

pub async fn attach(docker: &Docker, container: &str, spec: &ExecSpec) -> Result<Session, RuntimeError> {
    let tty = docker.inspect(container).await?.config.and_then(|c| c.tty) == Some(true);
    let flag = |b: bool| if b { "1" } else { "0" };
    let path = docker
        .path(&format!(
            "/containers/{container}/attach?stream=1&stdin={}&stdout={}&stderr={}",
            flag(spec.stdin),
            flag(spec.stdout),
            flag(spec.stderr)
        ))
        .await?;
    let (stdin, output) = hijack::upgrade(&docker.inner.socket, &path, Vec::new(), tty).await?;
    let control = AttachControl { docker: docker.clone(), container: container.to_owned() };
    Ok(Session { stdin, output, control: Box::new(control) })
}

struct ExecControl {
    docker: Docker,
    id: String,
}

impl ExecControl {
    async fn inspect(&self) -> Result<ExecInspectResponse, RuntimeError> {
        self.docker.api().await?.inspect_exec(&self.id).await.map_err(error)
    }
}

impl SessionControl for ExecControl {
    fn resize(&self, columns: u16, rows: u16) -> Answer<'_, ()> {
        async move {
            let options = bollard::exec::ResizeExecOptions { width: columns, height: rows };
            self.docker.api().await?.resize_exec(&self.id, options).await.map_err(error)
        }
        .boxed()
    }

    fn exit_code(&self) -> Answer<'_, Option<i32>> {
        async move {
            let deadline = tokio::time::Instant::now() + EXIT_CODE_WITHIN;
            loop {
                let exec = self.inspect().await?;
                if exec.running == Some(false)
                    && let Some(code) = exec.exit_code
                {
                    return Ok(Some(code as i32));
                }
                if tokio::time::Instant::now() > deadline {
                    return Err(RuntimeError::Other("the command's exit code isn't known".into()));
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
        .boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async move {
            let deadline = tokio::time::Instant::now() + STARTED_WITHIN;
            while let Ok(exec) = self.inspect().await {
                let pid = exec.pid.and_then(|p| i32::try_from(p).ok()).filter(|&p| p > 1);
                match (exec.running, pid) {
                    (Some(true), Some(pid)) => {
                        for pid in with_descendants(pid) {
                            // Already gone is what was wanted.
                            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                        }
                        return;
                    }
                    // It has ended.
                    (Some(false), _) if exec.exit_code.is_some() => return,
                    // It runs before Docker knows its number.
                    _ if tokio::time::Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
                    _ => return,
                }
            }
        }
        .boxed()
    }
}

/// A process and all it started, parents first. Docker has no call to end an exec, so it is ended from the host.
fn with_descendants(pid: i32) -> Vec<i32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|c| c.parse::<i32>().ok()));
    }
    found
}

struct AttachControl {
    docker: Docker,
    container: String,
}

impl SessionControl for AttachControl {
    fn resize(&self, columns: u16, rows: u16) -> Answer<'_, ()> {
        async move {
            let options =
                bollard::query_parameters::ResizeContainerTTYOptions { w: i32::from(columns), h: i32::from(rows) };
            self.docker.api().await?.resize_container_tty(&self.container, options).await.map_err(error)
        }
        .boxed()
    }

    fn exit_code(&self) -> Answer<'_, Option<i32>> {
        async { Ok(None) }.boxed()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
