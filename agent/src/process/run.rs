//! `longshore-agent run`.

use super::folder::{Folder, RuntimeKind, Settings};
use super::member::{Machinery, Member};
use super::{DATA_DIR, ProcessError, stop_signal};
use crate::connection::Connector;
use crate::connection::dial::Endpoint;
use crate::connection::identity::Identity;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use longshore_api::names;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pretended nodes that join at the same time.
const JOINS: usize = 16;

#[derive(Args, Debug)]
pub struct Run {
    /// The installation's base URL, https://HOST[:PORT].
    #[arg(long, env = "LONGSHORE_SERVER")]
    pub server: String,
    /// A file with a join token. Needed until this machine has joined, and useful when it was away for so long that its
    /// credential has expired.
    #[arg(long, env = "LONGSHORE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM: trust certificates signed by these instead of the CA that the token names. For an installation behind a
    /// public certificate: the system's bundle, such as /etc/ssl/certs/ca-certificates.crt.
    #[arg(long, env = "LONGSHORE_CA")]
    pub ca: Option<PathBuf>,
    /// The Node's name; by default this host's. Counts when joining: a node keeps its name.
    #[arg(long, env = "LONGSHORE_NAME")]
    pub name: Option<String>,
    /// Where this node keeps its identity, its pods and their volumes.
    #[arg(long, env = "LONGSHORE_DATA_DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    #[arg(long, env = "LONGSHORE_DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    pub docker_host: String,
    /// Labels for the Node object: KEY=VALUE,…
    #[arg(long, env = "LONGSHORE_LABELS", value_delimiter = ',')]
    pub labels: Vec<String>,
    #[arg(long, env = "LONGSHORE_RUNTIME", value_enum, default_value_t)]
    pub runtime: RuntimeKind,
    /// With the hollow runtime: this many nodes, NAME-0 and so on.
    #[arg(long, env = "LONGSHORE_NODES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub nodes: u32,
    /// With the hollow runtime, for nodes of many clusters: a folder with a join token for each node, in a file of its name.
    #[arg(long, env = "LONGSHORE_TOKENS", conflicts_with = "token_file")]
    pub tokens: Option<PathBuf>,
}

impl Run {
    /// Where the join token of a node is found.
    fn token_file(&self, name: &str) -> Option<PathBuf> {
        match &self.tokens {
            Some(folder) => Some(folder.join(name)),
            None => self.token_file.clone(),
        }
    }

    /// Runs until SIGTERM or SIGINT.
    pub async fn execute(self) -> Result<(), ProcessError> {
        Endpoint::from_environment(&self.server)?;
        allow_files();
        let labels = labels(&self.labels)?;
        let folder = Folder::open(&self.data_dir)?;
        let settings = Settings { runtime: self.runtime, docker_host: self.docker_host.clone() };
        folder.keep(&settings)?;
        let name = self.name.clone().unwrap_or_else(host_name);
        let nodes = match settings.runtime {
            RuntimeKind::Docker => vec![(name, folder.path.clone())],
            RuntimeKind::Hollow => (0..self.nodes)
                .map(|n| format!("{name}-{n}"))
                .map(|name| (name.clone(), folder.path.join("nodes").join(name)))
                .collect(),
        };
        let started = futures::stream::iter(nodes)
            .map(|(name, dir)| self.start(name, dir, &settings, &labels))
            .buffer_unordered(JOINS)
            .try_collect::<Vec<_>>();
        tokio::select! {
            members = started => {
                let _members = members?;
                stop_signal().await;
            }
            () = stop_signal() => {}
        }
        tracing::info!("stopping; containers go on");
        Ok(())
    }

    /// Starts one node; waits for the server where it has never joined.
    async fn start(
        &self,
        name: String,
        dir: PathBuf,
        settings: &Settings,
        labels: &BTreeMap<String, String>,
    ) -> Result<Member, ProcessError> {
        let identity = self.identity(&name, &dir)?;
        if identity.name() != name {
            tracing::warn!(node = identity.name(), "this folder's node keeps its name; {name:?} is ignored");
        }
        let token_file = self.token_file(&name);
        let connector = Connector { identity: identity.clone(), token_file: token_file.clone() };
        connector.join().await?;
        let machinery = Machinery::new(settings, &identity, &dir)?;
        Member::start(&machinery, identity, token_file, &dir, labels)
    }

    fn identity(&self, name: &str, dir: &Path) -> Result<Arc<Identity>, ProcessError> {
        let wrong = names::dns1123_subdomain(name);
        if let Some(wrong) = wrong.first() {
            return Err(ProcessError::Name(name.into(), wrong.to_string()));
        }
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| ProcessError::File { path: path.clone(), source })
        };
        let ca = self.ca.as_ref().map(read).transpose()?;
        let identity = Identity::load_or_make(dir, name, &self.server, ca)?;
        if identity.membership().is_none() && self.token_file(name).is_none() {
            return Err(ProcessError::NoToken);
        }
        Ok(Arc::new(identity))
    }
}

/// As the kubelet names its node: the host's name in lower case.
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().trim().to_lowercase()
}

/// As many open files as this process may ask for: a flow of datagrams is one, and most systems give a thousand to whoever
/// doesn't ask.
fn allow_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "this process may open {soft} files only");
    }
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>, ProcessError> {
    let given = given.iter().map(|label| label.trim()).filter(|label| !label.is_empty());
    given
        .map(|label| {
            let wrong = |why: String| ProcessError::Label(label.into(), why);
            let (key, value) = label.split_once('=').ok_or_else(|| wrong("it has the form KEY=VALUE".into()))?;
            let problems: Vec<_> = names::qualified_name(key).into_iter().chain(names::label_value(value)).collect();
            match problems.first() {
                None => Ok((key.to_owned(), value.to_owned())),
                Some(problem) => Err(wrong(problem.to_string())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_judged_before_anything_is_done() {
        let of = |text: &str| labels(&text.split(',').map(String::from).collect::<Vec<_>>());
        let found = of("zone=a, example.com/disk=ssd,empty=").unwrap();
        assert_eq!(
            found.into_iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>(),
            ["empty:", "example.com/disk:ssd", "zone:a"]
        );
        for wrong in ["zone", "a b=c", "a=b c"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
