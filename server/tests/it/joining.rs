//! The line to paste, run by a real shell and curl against a real port, with a program in the agent's place that says how
//! it was started.

use crate::installation::Installation;
use http::Request;
use longshore_api::accounts::JoinToken;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;
use tokio::process::Command;

const PRETENDER: &str = "#!/bin/sh
for argument in \"$@\"; do echo \"$argument\"; done
while [ $# -gt 1 ]; do [ \"$1\" != --token-file ] || { cat \"$2\"; stat -c 'mode %a' \"$2\"; }; shift; done
env | grep -c LONGSHORE_JOIN_TOKEN
true
";

async fn token(here: &Installation) -> JoinToken {
    let request = Request::post(format!("/v1/clusters/{}/join-tokens", here.cluster()))
        .header("authorization", format!("Bearer {}", here.secrets.api_token))
        .header("content-type", "application/json");
    let answer = here.send(request.body("{}".into()).unwrap()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

async fn run(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).env_remove("DOCKER_HOST").output().await.expect("a shell")
}

fn options(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "--foreground --name n1 --labels 'a=b,c=d e' --docker-host unix://{folder}/docker.sock --data-dir {folder}/data"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_to_paste_fetches_checks_and_runs_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("longshore-agent"), PRETENDER).unwrap();
    let _docker = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
    let here = Installation::start_with(folder.path().into()).await;
    let JoinToken { token, command, .. } = token(&here).await;
    let output = run(&format!("{command} {}", options(folder.path()))).await;
    let (said, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}{told}");
    let base = format!("https://{}", here.address);
    let folder = folder.path().display();
    let data = format!("{folder}/data");
    let docker = format!("unix://{folder}/docker.sock");
    let file = format!("{data}/join-token");
    let expected = [
        "run",
        "--server",
        &base,
        "--data-dir",
        &data,
        "--docker-host",
        &docker,
        "--name",
        "n1",
        "--labels",
        "a=b,c=d e",
        "--token-file",
        &file,
        &token,
        "mode 600",
        "0",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{told}");
    assert!(!told.contains(&token));
}

/// Says what it is asked, and takes the image.
const DOCKER: &str = "#!/bin/sh
echo \"$*\" >>\"$(dirname \"$0\")/docker.log\"
case \"$3\" in import) cat >/dev/null ; esac
";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_manager_the_agent_runs_in_a_privileged_container() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let docker = folder.path().join("docker");
    std::fs::write(folder.path().join("longshore-agent"), PRETENDER).unwrap();
    std::fs::write(&docker, DOCKER).unwrap();
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _docker = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
    let here = Installation::start_with(folder.path().into()).await;
    let JoinToken { token, command, .. } = token(&here).await;
    let options = options(folder.path()).replace("--foreground", "--container");
    let path = format!("PATH={}:$PATH; export PATH; ", folder.path().display());
    let output = run(&format!("{path}{command} {options}")).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains(&format!("the agent runs as container longshore-agent-{}", here.cluster())), "{told}");
    let asked = std::fs::read_to_string(folder.path().join("docker.log")).unwrap();
    assert!(!asked.contains(&token), "the token is on no command line: {asked}");
    let created = asked.lines().find(|line| line.contains(" create ")).unwrap();
    for part in ["--privileged --pid host --network host", "--restart always", "--token-file /join-token"] {
        assert!(created.contains(part), "{part} in {created}");
    }
    assert_eq!(created.matches("--name n1").count(), 1, "{created}");
    let verbs: Vec<_> = asked.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(verbs, ["version", "import", "rm", "create", "cp", "start"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_than_the_pinned_one_gets_nothing_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("longshore-agent"), PRETENDER).unwrap();
    let _docker = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
    let (here, other) =
        (Installation::start_with(folder.path().into()).await, Installation::start_with(folder.path().into()).await);
    let command = token(&here).await.command.replace(&here.address.to_string(), &other.address.to_string());
    let output = run(&format!("{command} {}", options(folder.path()))).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    assert!(!folder.path().join("data").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let here = Installation::start_with(folder.path().into()).await;
    let command = token(&here).await.command;
    let without_docker = run(&format!("{command} {}", options(folder.path()))).await;
    let told = String::from_utf8(without_docker.stderr).unwrap();
    assert!(!without_docker.status.success() && told.contains("Docker does not answer at"), "{told}");
    let _docker = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
    let without_agent = run(&format!("{command} {}", options(folder.path()))).await;
    let told = String::from_utf8(without_agent.stderr).unwrap();
    assert!(!without_agent.status.success() && told.contains("has no agent for this machine"), "{told}");
    let wrong_token = run(&format!("{} --foreground", command.replace("lsj.", "xyz."))).await;
    let told = String::from_utf8(wrong_token.stderr).unwrap();
    assert!(!wrong_token.status.success() && told.contains("no join token"), "{told}");
}
