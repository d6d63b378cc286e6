//! What pods ask for their safety holds in the container, or the container doesn't run.

use crate::node::{Machinery, WAIT, shell};
use serde_json::{Value, json};

fn with(mut container: Value, context: Value) -> Value {
    container["securityContext"] = context;
    container
}

#[tokio::test(flavor = "multi_thread")]
async fn security_contexts_hold_in_the_container() {
    let machine = Machinery::start();
    let node = machine.agent();
    let strict = json!({"runAsUser": 1000, "runAsGroup": 2000, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut main = with(shell("strict", WAIT), strict);
    main["resources"] = json!({"requests": {"memory": "2Gi"}});
    let plain = with(shell("plain", WAIT), json!({"seccompProfile": {"type": "Unconfined"}}));
    machine.pod(
        "p",
        json!({"containers": [main, plain], "terminationGracePeriodSeconds": 1,
        "securityContext": {"supplementalGroups": [3000], "fsGroup": 4000,
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}}),
    );
    machine.running("p").await;
    let strict = async |script: &str| node.output("p", "strict", script).await;
    assert_eq!(strict("id -u; id -g").await, "1000\n2000");
    let groups = strict("id -G").await;
    assert!(["3000", "4000"].iter().all(|g| groups.split(' ').any(|have| have == *g)), "{groups}");
    assert!(node.exec("p", "strict", "echo x > /file").await.stderr.contains("Read-only file system"));
    let status = async |container: &str| node.output("p", container, "cat /proc/1/status").await;
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    let confined = status("strict").await;
    assert_eq!(field(&confined, "CapBnd:"), "0000000000000000");
    assert_eq!(field(&confined, "NoNewPrivs:"), "1");
    assert_eq!(field(&confined, "Seccomp:"), "2", "the runtime's profile holds where none is named");
    assert_eq!(field(&status("plain").await, "Seccomp:"), "0");
    assert_eq!(strict("cat /proc/sys/net/ipv4/ip_unprivileged_port_start").await, "80");
    assert_eq!(strict("cat /proc/1/oom_score_adj").await, "500");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_not_run_is_told_why() {
    let machine = Machinery::start();
    let node = machine.agent();
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    machine.pod("root", json!({"containers": [with(shell("main", WAIT), json!({"runAsNonRoot": true}))]}));
    let pod = machine.until("root", "refused", |pod| waiting(pod)["reason"] == "CreateContainerConfigError").await;
    assert_eq!(
        waiting(&pod)["message"],
        "container has runAsNonRoot and image will run as root (pod: \"root_default(root)\", container: main)"
    );

    machine.pod(
        "sysctl",
        json!({"containers": [shell("main", WAIT)],
        "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
    );
    let pod = machine.until("sysctl", "refused", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "SysctlForbidden");
    assert_eq!(pod["status"]["message"], "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
    assert_eq!(machine.containers(&node, "sysctl").await, []);

    let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "none.json"}});
    machine.pod("profile", json!({"containers": [with(shell("main", WAIT), local)]}));
    let pod = machine.until("profile", "refused", |pod| waiting(pod)["reason"] == "CreateContainerConfigError").await;
    assert!(waiting(&pod)["message"].as_str().unwrap().starts_with("cannot load seccomp profile"));

    machine.pod("users", json!({"hostUsers": false, "containers": [shell("main", WAIT)]}));
    crate::node::eventually("the sandbox is refused", || {
        machine.api.events("users").iter().any(|(reason, _)| reason == "FailedCreatePodSandBox")
    })
    .await;
    assert_eq!(machine.docker.pod_containers(), []);
    // Refused pods end like any other.
    for name in ["root", "sysctl", "profile", "users"] {
        machine.api.delete_pod(name, 1);
        machine.gone(name).await;
    }
}
