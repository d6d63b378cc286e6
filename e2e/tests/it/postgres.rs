//! Postgres dies and comes back under load: what was acknowledged is there, what was not got an error.

use longshore_e2e::{Installation, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn postgres_is_killed_while_clients_write_and_nothing_acknowledged_is_lost() {
    let installation = Installation::start();
    let kubectl = installation.kubectl();
    let curl = installation.curl();
    let path = "/api/v1/namespaces/default/configmaps";
    let stop = AtomicBool::new(false);

    let (acknowledged, errors) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (curl, stop) = (&curl, &stop);
                scope.spawn(move || {
                    let (mut names, mut errors) = (Vec::new(), Vec::new());
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let name = format!("w{writer}-{n}");
                        let body = format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"n":"{n}"}}}}"#);
                        let answer = curl.send("POST", path, "application/json", Some(body.as_bytes()));
                        match answer.status {
                            201 => names.push(name),
                            _ => errors.push(answer),
                        }
                    }
                    (names, errors)
                })
            })
            .collect();
        for _ in 0..3 {
            let victim = installation.kill_postgres();
            eventually("Postgres runs again", Duration::from_secs(60), || match installation.postgres_pid() {
                Some(new) if new != victim => Ok(()),
                seen => Err(format!("{seen:?}")),
            });
            let name = format!("after-{victim}");
            eventually("writes are taken again", Duration::from_secs(60), || {
                kubectl
                    .try_run(&["create", "configmap", &name, "--from-literal=a=b"])
                    .or_else(|error| if error.contains("AlreadyExists") { Ok(error) } else { Err(error) })
            });
        }
        stop.store(true, Ordering::Relaxed);
        let done: Vec<_> = writers.into_iter().map(|w| w.join().expect("a writer")).collect();
        let (names, errors): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        (names.concat(), errors.concat())
    });
    for error in &errors {
        // Kubernetes's own answers for a store that is away; a write of unknown outcome is an error too.
        assert!(matches!(error.status, 500 | 503 | 504), "{error:?}");
        assert_eq!(error.json()["kind"], "Status", "{error:?}");
    }
    // What controllers add when they can is not counted.
    let clients = || -> std::collections::BTreeSet<String> {
        let list = kubectl.json(&["get", "configmaps"]);
        let names = list["items"].as_array().into_iter().flatten().filter_map(|c| c["metadata"]["name"].as_str());
        names.filter(|name| *name != "kube-root-ca.crt").map(String::from).collect()
    };
    let stored = clients();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !stored.contains(*name)).collect();
    assert!(acknowledged.len() > 20, "only {} writes, {} errors", acknowledged.len(), errors.len());
    assert!(lost.is_empty(), "of {} acknowledged, lost: {lost:?}", acknowledged.len());
    // The same after a restart, from what Postgres holds.
    let mut installation = installation;
    installation.kill_server();
    installation.start_server();
    assert_eq!(clients(), stored);
}
