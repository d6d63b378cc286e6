//! Images: from a registry, from none, and while a registry doesn't answer.

use crate::node::{Machinery, WAIT, shell};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A registry on a port of its own, ended with the test.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(folder: &Path) -> Self {
        let address = free_address();
        std::fs::create_dir_all(folder).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: {address}}}\n",
            folder.display()
        );
        let path = folder.join("config.yml");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts: install docker-registry");
        longshore_e2e::eventually("the registry listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&address).map(drop).map_err(|e| e.to_string())
        });
        Self { process, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_its_registry() {
    let machine = Machinery::start();
    let registry = Registry::start(&machine.data_dir().with_file_name("registry"));
    let image = format!("{}/team/hello:1", registry.address);
    machine.docker.run(&["tag", "longshore/hello:v1", &image]);
    machine.docker.run(&["push", &image]);
    machine.docker.run(&["rmi", &image]);
    // The password is nobody's; a registry without accounts takes it.
    let config = json!({"auths": {&registry.address: {"auth": STANDARD.encode("user:password")}}});
    machine.api.put(
        "secrets",
        json!({"metadata": {"namespace": "default", "name": "pull"},
        "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": STANDARD.encode(config.to_string())}}),
    );
    let _node = machine.agent();
    let mut main = shell("main", WAIT);
    main["image"] = json!(image);
    main["imagePullPolicy"] = json!("Always");
    machine.pod(
        "p",
        json!({"containers": [main], "imagePullSecrets": [{"name": "pull"}], "terminationGracePeriodSeconds": 1}),
    );
    let pod = machine.running("p").await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["image"], json!(image));
    let prefix = format!("docker-pullable://{}/team/hello@sha256:", registry.address);
    assert!(status["imageID"].as_str().unwrap().starts_with(&prefix), "{status:#}");
    machine.said("p", "Pulled", "Successfully pulled image").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cant_be_pulled_is_said_and_held_back() {
    let machine = Machinery::start();
    let node = machine.agent();
    let nobody = free_address();
    let pod_with = |name: &str, image: &str, policy: &str| {
        let mut main = shell("main", WAIT);
        main["image"] = json!(image);
        main["imagePullPolicy"] = json!(policy);
        machine.pod(name, json!({"containers": [main], "terminationGracePeriodSeconds": 1}));
    };
    let image = format!("{nobody}/none:1");
    pod_with("refused", &image, "IfNotPresent");
    let pod = machine.until("refused", "told of the failure", |pod| waiting(pod)["reason"] == "ErrImagePull").await;
    assert!(waiting(&pod)["message"].as_str().unwrap().contains("connection refused"), "{}", waiting(&pod));
    let (_, message) = node.get("/containerLogs/default/refused/main").await;
    let in_words = "container \"main\" in pod \"refused\" is waiting to start: ";
    assert!(message.starts_with(in_words), "{message}");
    let pod = machine.until("refused", "held back", |pod| waiting(pod)["reason"] == "ImagePullBackOff").await;
    let message = waiting(&pod)["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("Back-off pulling image \"{image}\": ErrImagePull: ")), "{message}");
    assert_eq!(pod["status"]["phase"], "Pending");

    pod_with("never", "longshore/absent:1", "Never");
    pod_with("wrong", "NOT AN IMAGE", "IfNotPresent");
    machine.until("never", "told so", |pod| waiting(pod)["reason"] == "ErrImageNeverPull").await;
    machine.until("wrong", "told so", |pod| waiting(pod)["reason"] == "InvalidImageName").await;

    // A registry that takes the connection and says nothing holds up its own container only.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut slow = shell("slow", WAIT);
    slow["image"] = json!(format!("{}/none:1", silent.local_addr().unwrap()));
    machine.pod("half", json!({"containers": [shell("main", WAIT), slow], "terminationGracePeriodSeconds": 1}));
    machine
        .until("half", "half running", |pod| pod["status"]["containerStatuses"][0]["state"]["running"].is_object())
        .await;
    for name in ["refused", "never", "wrong", "half"] {
        machine.api.delete_pod(name, 1);
        machine.gone(name).await;
    }
}
