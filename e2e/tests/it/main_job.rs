//! Declare a Deployment: real containers run, heal, scale, roll out and back, and are gone when it is deleted.

use longshore_e2e::kubectl::container_ids;
use longshore_e2e::{Docker, Installation, eventually, program, sample};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_deployment_runs_heals_scales_rolls_out_and_back_and_goes() {
    let installation = Installation::start();
    let docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();

    kubectl.apply(&sample::deployment(3, "v1"));
    kubectl.run(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
    let pods = kubectl.wait_ready_pods("app=hello", 3);
    assert_eq!(docker.pod_containers().len(), 3);
    for pod in &pods {
        let ip = pod["status"]["podIP"].as_str().expect("a ready pod has an address");
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        let text = eventually("the pod answers on its address", Duration::from_secs(10), || {
            agent.http_get(&format!("{ip}:8080"))
        });
        assert!(text.contains(&format!("hello v1 from {name}")), "{text}");
    }

    // Killed behind everybody's back.
    let victim = container_ids(&pods)[0].clone();
    docker.run(&["kill", &victim]);
    eventually("the killed container is replaced", Duration::from_secs(30), || {
        let ids = container_ids(&kubectl.pods("app=hello"));
        if ids.len() == 3 && !ids.contains(&victim) { Ok(()) } else { Err(format!("{ids:?}")) }
    });
    let pods = kubectl.wait_ready_pods("app=hello", 3);
    let restarts: i64 = pods.iter().filter_map(|p| p["status"]["containerStatuses"][0]["restartCount"].as_i64()).sum();
    assert_eq!(restarts, 1);

    kubectl.run(&["scale", "deployment/hello", "--replicas=5"]);
    kubectl.wait_ready_pods("app=hello", 5);

    kubectl.run(&["set", "image", "deployment/hello", "hello=longshore/hello:v2"]);
    kubectl.run(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
    let pods = kubectl.wait_ready_pods("app=hello", 5);
    assert!(pods.iter().all(|p| p["spec"]["containers"][0]["image"] == "longshore/hello:v2"));
    let history = kubectl.run(&["rollout", "history", "deployment/hello"]);
    assert!(history.contains("1") && history.contains("2"), "{history}");

    kubectl.run(&["rollout", "undo", "deployment/hello"]);
    kubectl.run(&["rollout", "status", "deployment/hello", "--timeout=90s"]);
    let pods = kubectl.wait_ready_pods("app=hello", 5);
    assert!(pods.iter().all(|p| p["spec"]["containers"][0]["image"] == "longshore/hello:v1"));

    let name = pods[0]["metadata"]["name"].as_str().expect("a name");
    let logs = kubectl.run(&["logs", name]);
    assert!(logs.contains(&format!("hello v1: {name} listens on 8080")), "{logs}");
    assert_eq!(kubectl.run(&["exec", name, "--", "sh", "-c", "echo $((6*7))"]).trim(), "42");
    let failed = kubectl.try_run(&["exec", name, "--", "sh", "-c", "exit 3"]).expect_err("exit code 3");
    assert!(failed.contains("exit code 3"), "{failed}");

    kubectl.run(&["delete", "deployment", "hello"]);
    eventually("no pod is left", Duration::from_secs(30), || {
        let left = kubectl.try_run(&["get", "pods", "-o", "name"])?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    assert!(docker.pod_containers().is_empty());
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_harms_nothing() {
    let installation = Installation::start();
    let kubectl = installation.kubectl();
    let second = Command::new(program("longshore-server"))
        .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(installation.server_folder())
        .output()
        .expect("the server starts");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("is in use by another server"), "{said}");
    kubectl.run(&["create", "configmap", "after", "--from-literal=a=b"]);
    assert!(installation.server_folder().join("ready").exists());
}

#[test]
fn the_server_is_killed_and_nothing_is_lost() {
    let mut installation = Installation::start();
    let kubectl = installation.kubectl();
    for n in 0..20 {
        kubectl.run(&["create", "configmap", &format!("c{n}"), &format!("--from-literal=n={n}")]);
    }
    kubectl.run(&["create", "secret", "generic", "s", "--from-literal=password=hunter2"]);
    installation.kill_server();
    installation.start_server();
    assert_eq!(kubectl.run(&["get", "secret", "s", "-o", "jsonpath={.data.password}"]), "aHVudGVyMg==");
    let list = kubectl.json(&["get", "configmaps", "-l", "!nothing"]);
    let names: Vec<&str> =
        list["items"].as_array().into_iter().flatten().filter_map(|c| c["metadata"]["name"].as_str()).collect();
    assert_eq!(names.iter().filter(|n| n.starts_with('c')).count(), 20, "{names:?}");
}

#[test]
fn an_agent_is_killed_and_comes_back_to_containers_that_went_on() {
    let mut installation = Installation::start();
    let mut docker = Docker::start(&installation.folder().join("docker"));
    docker.make_sample_image();
    let mut agent = installation.start_agent("worker", &docker);
    let kubectl = installation.kubectl();
    kubectl.apply(&sample::deployment(2, "v1"));
    let before = container_ids(&kubectl.wait_ready_pods("app=hello", 2));

    agent.kill();
    eventually("the node is shown as silent", Duration::from_secs(60), || {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let status = kubectl.try_run(&["get", "node", "worker", "-o", path])?;
        if status == "Unknown" { Ok(()) } else { Err(status) }
    });
    assert_eq!(docker.pod_containers().len(), 2, "containers go on without their agent");
    agent.start();
    kubectl.wait_node_ready("worker");
    assert_eq!(container_ids(&kubectl.wait_ready_pods("app=hello", 2)), before, "containers are untouched");

    installation.kill_server();
    installation.start_server();
    kubectl.wait_node_ready("worker");
    assert_eq!(container_ids(&kubectl.wait_ready_pods("app=hello", 2)), before);

    docker.kill_and_restart();
    eventually("sandboxes are made anew", Duration::from_secs(90), || {
        let pods = kubectl.pods("app=hello");
        let ids = container_ids(&pods);
        let anew = ids.len() == 2 && ids.iter().all(|id| !before.contains(id));
        if anew && pods.iter().all(longshore_e2e::kubectl::is_ready) { Ok(()) } else { Err(format!("{ids:?}")) }
    });
}
