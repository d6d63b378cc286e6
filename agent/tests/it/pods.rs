//! Pods from their binding to their end.

use crate::node::{Machinery, PATIENCE, WAIT, condition, exists, shell};
use http::StatusCode;
use serde_json::{Value, json};

fn state(pod: &Value, index: usize) -> &Value {
    &pod["status"]["containerStatuses"][index]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_is_told_of_and_ends() {
    let machine = Machinery::start();
    let node = machine.agent();
    let script = format!("echo one; echo two; echo $KUBERNETES_SERVICE_HOST; {WAIT}");
    let loud = format!("echo error >&2; echo fine; {WAIT}");
    let containers = json!([shell("main", &script), shell("loud", &loud)]);
    machine.pod("web", json!({"containers": containers, "terminationGracePeriodSeconds": 30}));
    let pod = machine.running("web").await;
    let id = state(&pod, 0)["containerID"].as_str().unwrap().to_owned();
    assert!(id.starts_with("docker://") && pod["status"]["podIP"] == "10.77.0.2", "{:#}", pod["status"]);
    assert_eq!(state(&pod, 0)["restartCount"], 0);

    let logs = async |options: &str| node.get(&format!("/containerLogs/default/web/main?{options}")).await;
    assert_eq!(logs("").await, (StatusCode::OK, "one\ntwo\n10.96.0.1\n".into()));
    assert_eq!(logs("tailLines=2").await.1, "two\n10.96.0.1\n");
    assert_eq!(logs("tailLines=0").await.1, "");
    assert_eq!(logs("limitBytes=5").await.1, "one\nt");
    assert_eq!(node.get("/containerLogs/default/web/loud?stream=Stderr").await.1, "error\n");
    assert_eq!(logs("sinceTime=2999-01-01T00:00:00Z").await.1, "");
    let stamped = logs("timestamps=true&tailLines=1").await.1;
    let (stamp, line) = stamped.split_once(' ').unwrap();
    assert!(stamp.parse::<jiff::Timestamp>().is_ok() && line == "10.96.0.1\n", "{stamped}");
    let (code, message) = logs("previous=true").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(message, "previous terminated container \"main\" in pod \"web\" not found");
    assert_eq!(node.get("/containerLogs/default/none/main").await.0, StatusCode::NOT_FOUND);

    let (_, metrics) = node.get("/metrics/resource").await;
    assert!(
        metrics.contains("container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"web\"}")
    );
    let summary: Value = serde_json::from_str(&node.get("/stats/summary").await.1).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "web");
    assert!(summary["pods"][0]["containers"][0]["memory"]["workingSetBytes"].as_u64().unwrap() > 0);

    let begun = std::time::Instant::now();
    let follow = node.get("/containerLogs/default/web/main?follow=true");
    machine.api.delete_pod("web", 30);
    let (gone, followed) = tokio::join!(machine.gone("web"), follow);
    assert!(gone.is_null() && followed.1.contains("10.96.0.1\n"));
    assert!(begun.elapsed() < PATIENCE, "SIGTERM was heard, the grace wasn't waited out");
    assert_eq!(machine.containers(&node, "web").await, []);
    assert!(
        !exists(&machine.data_dir().join("pods/web")) && !exists(&machine.data_dir().join("desired/pods/web.json"))
    );
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        machine.said("web", reason, "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_backs_off_and_keeps_the_last_words() {
    let machine = Machinery::start();
    let node = machine.agent();
    let mut crash = shell("crash", "echo attempt; echo the reason > /dev/termination-log; exit 3");
    let mut quiet = shell("quiet", "echo from the log; exit 4");
    quiet["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    crash["terminationMessagePath"] = json!("/dev/termination-log");
    machine.pod("loop", json!({"containers": [crash, quiet]}));
    let pod = machine
        .until("loop", "held back", |pod| {
            [0, 1].iter().all(|&i| {
                state(pod, i)["state"]["waiting"]["reason"] == "CrashLoopBackOff" && state(pod, i)["restartCount"] == 1
            })
        })
        .await;
    let ended = &state(&pod, 0)["lastState"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(3), &json!("Error")));
    assert_eq!(ended["message"], "the reason\n");
    assert_eq!(state(&pod, 1)["lastState"]["terminated"]["message"], "from the log\n");
    assert_eq!(
        state(&pod, 0)["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=crash pod=loop_default(loop)"
    );
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(node.get("/containerLogs/default/loop/crash?previous=true").await.1, "attempt\n");
    // After one more try: the last two are kept, older ones are gone.
    machine.until("loop", "started twice more", |pod| state(pod, 0)["restartCount"] == 2).await;
    let mut kept = Vec::new();
    for _ in 0..100 {
        let all = machine.containers(&node, "loop").await;
        kept = all.into_iter().filter(|c| c.0 == "crash").map(|c| c.1).collect();
        if kept.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(kept, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_go_first_sidecars_stay_and_never_means_once() {
    let machine = Machinery::start();
    let node = machine.agent();
    let volume = json!([{"name": "v", "mountPath": "/v"}]);
    let with = |mut container: Value| {
        container["volumeMounts"] = volume.clone();
        container
    };
    let first = with(shell("first", "echo first >> /v/order"));
    let mut side = with(shell("side", &format!("echo side >> /v/order; {WAIT}")));
    side["restartPolicy"] = json!("Always");
    side["startupProbe"] = json!({"exec": {"command": ["grep", "side", "/v/order"]}, "periodSeconds": 1});
    let last = with(shell("last", "echo last >> /v/order"));
    let main = with(shell("main", "echo main >> /v/order; cat /v/order"));
    machine.pod("job", json!({"restartPolicy": "Never", "initContainers": [first, side, last], "containers": [main],
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}], "terminationGracePeriodSeconds": 5}));
    let pod = machine.until("job", "done", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(node.get("/containerLogs/default/job/main").await.1, "first\nside\nlast\nmain\n");
    assert_eq!(state(&pod, 0)["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Initialized"), Some(true));
    assert_eq!(condition(&pod, "Ready"), Some(false));
    machine
        .until("job", "without its sidecar", |pod| {
            pod["status"]["initContainerStatuses"][1]["state"]["terminated"].is_object()
        })
        .await;

    machine.pod("fails", json!({"restartPolicy": "Never", "initContainers": [shell("no", "exit 1")], "containers": [shell("main", "true")]}));
    let pod = machine.until("fails", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(state(&pod, 0)["state"]["waiting"]["reason"], "PodInitializing");
    machine.api.delete_pod("job", 5);
    machine.api.delete_pod("fails", 5);
    machine.gone("job").await;
    machine.gone("fails").await;
    assert!(!exists(&machine.data_dir().join("pods/job")), "the tmpfs is unmounted");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_is_an_oom_kill() {
    let machine = Machinery::start();
    let _node = machine.agent();
    let mut eater = shell("eater", "a=x; while true; do a=$a$a; done");
    eater["resources"] = json!({"limits": {"memory": "16Mi"}});
    machine.pod("oom", json!({"restartPolicy": "Never", "containers": [eater]}));
    let pod = machine.until("oom", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &state(&pod, 0)["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_restart_touches_no_container() {
    let machine = Machinery::start();
    let node = machine.agent();
    let mut main = shell("main", "[ -e /v/ran ] || { touch /v/ran; exit 1; }; sleep 100000");
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    // Ready at once, and never probed again while the test runs: who forgets, would say that it isn't ready.
    main["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 1000});
    machine.pod(
        "kept",
        json!({"containers": [main], "volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 1}),
    );
    let before = machine
        .until("kept", "restarted and ready", |pod| {
            state(pod, 0)["restartCount"] == 1 && condition(pod, "Ready") == Some(true)
        })
        .await;
    let since = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().into_iter().flatten();
        all.filter(|c| c["type"] == "Ready").map(|c| c["lastTransitionTime"].clone()).collect::<Vec<_>>()
    };
    // What it has said is on disk once it has heard of it.
    crate::node::eventually("the agent knows what the server has", || {
        let text = std::fs::read(machine.data_dir().join("desired/pods/kept.json")).unwrap_or_default();
        since(&serde_json::from_slice(&text).unwrap_or_default()) == since(&before)
    })
    .await;
    drop(node);
    machine.api.set_away(true);
    let node = machine.agent();
    // Without its server it knows the pod from disk, and serves what it has.
    let mut seen = String::new();
    for _ in 0..200 {
        seen = node.get("/pods").await.1;
        if seen.contains("kept") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(seen.contains("kept"), "{seen}");
    machine.api.set_away(false);
    machine.api.change("pods", "default", "kept", |pod| pod["metadata"]["labels"] = json!({"touched": "1"}));
    // A second pod that runs shows that the agent is at work again.
    machine.pod("new", json!({"containers": [shell("main", WAIT)], "terminationGracePeriodSeconds": 1}));
    machine.running("new").await;
    let after = machine.running("kept").await;
    assert_eq!(state(&after, 0)["containerID"], state(&before, 0)["containerID"]);
    assert_eq!(state(&after, 0)["restartCount"], 1);
    assert_eq!(since(&after), since(&before), "it never was unready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_or_pause_or_daemon_is_made_good() {
    let mut machine = Machinery::start();
    let node = machine.agent();
    machine.pod("p", json!({"containers": [shell("main", WAIT)], "terminationGracePeriodSeconds": 1}));
    let first = machine.running("p").await;
    let count = |pod: &Value| state(pod, 0)["restartCount"].as_i64().unwrap_or(-1);
    let id = |pod: &Value| state(pod, 0)["containerID"].as_str().unwrap_or_default().replace("docker://", "");
    let ready = |pod: &Value| condition(pod, "Ready") == Some(true);

    machine.docker.run(&["kill", &id(&first)]);
    let second = machine.until("p", "running anew", |pod| count(pod) == 1 && ready(pod)).await;
    assert_eq!(state(&second, 0)["lastState"]["terminated"]["exitCode"], 137);

    let pause = machine.docker.run(&["ps", "-q", "--no-trunc", "--filter", "name=k8s_POD_p_"]);
    machine.docker.run(&["kill", &pause]);
    let third = machine.until("p", "in a new sandbox", |pod| count(pod) == 2 && ready(pod)).await;
    assert_ne!(id(&third), id(&second));
    let sandbox = machine.docker.run(&["ps", "-q", "--no-trunc", "--filter", "name=k8s_POD_p_"]);
    assert!(sandbox != pause && sandbox.lines().count() == 1, "{sandbox}");

    machine.docker.kill_and_restart();
    let fourth = machine.until("p", "back after Docker", |pod| count(pod) == 3 && ready(pod)).await;
    assert_ne!(id(&fourth), id(&third));
    let running = machine.docker.pod_containers();
    assert_eq!(running, [(id(&fourth), "main".to_owned())]);
    machine.api.delete_pod("p", 1);
    machine.gone("p").await;
    assert_eq!(machine.containers(&node, "p").await, []);
}
