//! Volumes, hooks and probes: what surrounds a container.

use crate::node::{Machinery, WAIT, condition, eventually, shell};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted_and_follow_their_objects() {
    let machine = Machinery::start();
    machine.api.put("configmaps", json!({"metadata": {"namespace": "default", "name": "m"}, "data": {"key": "old"}}));
    machine.api.put("secrets", json!({"metadata": {"namespace": "default", "name": "s"}, "data": {"key": "czNjcmV0"}}));
    let host = machine.data_dir().with_file_name("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("sub/file"), "from the host").unwrap();
    std::os::unix::fs::symlink("/etc", host.join("out")).unwrap();
    let node = machine.agent();
    let mut main = shell("main", WAIT);
    main["securityContext"] = json!({"runAsUser": 1000});
    main["env"] = json!([{"name": "FROM", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "key"}}}]);
    main["volumeMounts"] = json!([
        {"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"},
        {"name": "token", "mountPath": "/token"}, {"name": "scratch", "mountPath": "/scratch"},
        {"name": "host", "mountPath": "/host", "subPath": "sub", "readOnly": true},
        {"name": "host", "mountPath": "/one", "subPath": "sub/file"},
        {"name": "map", "mountPath": "/key", "subPath": "key"},
    ]);
    let volumes = json!([
        {"name": "map", "configMap": {"name": "m"}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 256}},
        {"name": "token", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
        {"name": "scratch", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": host.display().to_string(), "type": "Directory"}},
    ]);
    machine.pod_with(
        "p",
        json!({"labels": {"a": "1"}}),
        json!({"containers": [main], "volumes": volumes,
        "securityContext": {"fsGroup": 4000}, "terminationGracePeriodSeconds": 1}),
    );
    machine.running("p").await;
    let output = async |script: &str| node.output("p", "main", script).await;
    assert_eq!(output("cat /map/key; echo; echo $FROM; cat /key").await, "old\nold\nold");
    assert_eq!(output("cat /secret/key").await, "s3cret", "a group's member reads what only its owner could");
    assert_eq!(output("cat /token/token").await, "token-1-of-default");
    assert_eq!(output("cat /token/labels").await, "a=\"1\"");
    assert_eq!(output("echo x > /scratch/file; cat /scratch/file").await, "x");
    assert_eq!(output("cat /host/file; cat /one").await, "from the hostfrom the host");
    assert!(node.exec("p", "main", "echo x > /map/key").await.stderr.contains("Read-only file system"));
    assert!(output("cat /etc/hosts").await.contains("10.77.0.2\tp"));
    assert_eq!(output("hostname").await, "p");

    machine.api.change("configmaps", "default", "m", |map| map["data"]["key"] = json!("new"));
    machine.api.change("pods", "default", "p", |pod| pod["metadata"]["labels"]["a"] = json!("2"));
    let ended = node.exec("p", "main", "for i in $(seq 300); do [ $(cat /map/key) = new ] && grep -q 2 /token/labels && exit 0; sleep 0.1; done; exit 1").await;
    assert_eq!(ended.status["status"], "Success", "{ended:?}");

    let mut out = shell("main", WAIT);
    out["volumeMounts"] = json!([{"name": "host", "mountPath": "/x", "subPath": "out"}]);
    machine.pod(
        "escapes",
        json!({"containers": [out], "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "host", "hostPath": {"path": host.display().to_string()}}]}),
    );
    let pod = machine
        .until("escapes", "refused", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.ends_with("leads out of its volume"), "{message}");

    machine.pod(
        "late",
        json!({"containers": [shell("main", WAIT)], "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "v", "configMap": {"name": "late"}}]}),
    );
    eventually("the missing map is told", || {
        let events = machine.api.events("late");
        events.iter().any(|(r, m)| r == "FailedMount" && m.ends_with("configmap \"late\" not found"))
    })
    .await;
    machine.api.put("configmaps", json!({"metadata": {"namespace": "default", "name": "late"}}));
    machine.running("late").await;
    for name in ["p", "escapes", "late"] {
        machine.api.delete_pod(name, 1);
        machine.gone(name).await;
    }
    assert_eq!(std::fs::read_to_string(host.join("sub/file")).unwrap(), "from the host", "what lies behind stays");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = machine.data_dir().display().to_string();
    assert!(!mounts.contains(&ours), "nothing stays mounted: {mounts}");
}

struct Elsewhere(String);

impl Elsewhere {
    fn make() -> Self {
        let name = format!("longshore-it-{}", std::process::id());
        assert!(std::process::Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self(name)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_mounts_of_its_own_finds_its_volumes() {
    let elsewhere = Elsewhere::make();
    let machine = Machinery::start_in(Some(&elsewhere.0));
    let node = machine.agent();
    let mut main = shell("main", WAIT);
    main["volumeMounts"] =
        json!([{"name": "v", "mountPath": "/all"}, {"name": "v", "mountPath": "/part", "subPath": "a/b"}]);
    machine.pod(
        "p",
        json!({"containers": [main], "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}),
    );
    machine.running("p").await;
    assert_eq!(node.output("p", "main", "echo x > /part/file; cat /all/a/b/file").await, "x");
    let mounts = node.output("p", "main", "grep ' /all ' /proc/mounts").await;
    assert!(mounts.starts_with("tmpfs /all tmpfs"), "{mounts}");
    machine.api.delete_pod("p", 1);
    machine.gone("p").await;
    assert!(!machine.data_dir().join("pods/p").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_and_a_failed_first_one_kills() {
    let machine = Machinery::start();
    let _node = machine.agent();
    let host = machine.data_dir().with_file_name("host");
    std::fs::create_dir_all(&host).unwrap();
    let mut main = shell("main", "/hello & exec sleep 100000");
    main["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    main["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /host/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo ending > /host/pre"]}}});
    let volumes = json!([{"name": "host", "hostPath": {"path": host.display().to_string()}}]);
    machine.pod("p", json!({"containers": [main], "volumes": volumes, "terminationGracePeriodSeconds": 30}));
    machine.running("p").await;
    assert_eq!(std::fs::read_to_string(host.join("post")).unwrap(), "started\n");
    // `sleep` hears no signal as process 1: less grace, asked for while it ends, cuts the wait short.
    let begun = std::time::Instant::now();
    machine.api.delete_pod("p", 3600);
    eventually("the hook has run", || host.join("pre").exists()).await;
    machine.api.delete_pod("p", 1);
    machine.gone("p").await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));

    let mut main = shell("main", WAIT);
    main["lifecycle"] = json!({"postStart": {"exec": {"command": ["false"]}}});
    machine.pod("fails", json!({"containers": [main], "terminationGracePeriodSeconds": 1}));
    let pod = machine
        .until("fails", "killed for its hook", |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["lastState"]["terminated"].is_object() && status["state"]["waiting"].is_object()
        })
        .await;
    let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
    assert!(reason == "PostStartHookError" || reason == "CrashLoopBackOff", "{reason}");
    machine.said("fails", "FailedPostStartHook", "PostStartHook failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_on_readiness_and_restarts() {
    let machine = Machinery::start();
    let node = machine.agent();
    let mut web = shell("web", "/hello");
    let every = |mut probe: Value| {
        probe["periodSeconds"] = json!(1);
        probe["failureThreshold"] = json!(2);
        probe
    };
    web["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    web["startupProbe"] = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 30});
    web["readinessProbe"] = every(json!({"httpGet": {"path": "/index.html", "port": "http"}}));
    web["livenessProbe"] = every(json!({"exec": {"command": ["sh", "-c", "[ ! -e /tmp/sick ]"]}}));
    machine.pod("p", json!({"containers": [web], "terminationGracePeriodSeconds": 1}));
    let pod = machine.running("p").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], true);

    node.output("p", "web", "mv /tmp/www/index.html /tmp/www/away || busybox mv /tmp/www/index.html /tmp/www/away")
        .await;
    machine.until("p", "not ready", |pod| condition(pod, "Ready") == Some(false)).await;
    node.output("p", "web", "busybox mv /tmp/www/away /tmp/www/index.html").await;
    let pod = machine.running("p").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);

    node.output("p", "web", "touch /tmp/sick").await;
    machine
        .until("p", "restarted and ready", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1 && condition(pod, "Ready") == Some(true)
        })
        .await;
    for (reason, start) in [
        ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404"),
        ("Unhealthy", "Liveness probe failed: "),
        ("Killing", "Container web failed liveness probe, will be restarted"),
    ] {
        machine.said("p", reason, start).await;
    }
}
