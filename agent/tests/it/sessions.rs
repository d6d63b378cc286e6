//! Exec and attach over the channel protocol.

use crate::node::{Machinery, WAIT, eventually, exec_path, process_runs, shell};
use serde_json::{Value, json};

const V5: &str = "v5.channel.k8s.io";

#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_streams_exit_codes_and_the_end_of_input() {
    let machine = Machinery::start();
    let node = machine.agent();
    machine.pod("p", json!({"containers": [shell("main", WAIT)], "terminationGracePeriodSeconds": 1}));
    machine.running("p").await;

    let ended = node.exec("p", "main", "echo out; echo err >&2; exit 3").await;
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(
        ended.status,
        json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: command terminated with exit code 3",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}})
    );

    let mut cat = node.open(&exec_path("p", "main", "input=1&output=1", &["cat"]), V5).await;
    let long = "x".repeat(300_000);
    for part in long.as_bytes().chunks(32 << 10) {
        cat.send(0, part).await;
    }
    cat.send(255, &[0]).await;
    let ended = cat.end().await;
    assert!(ended.stdout == long, "{} bytes of {}", ended.stdout.len(), long.len());
    assert_eq!(ended.status["status"], "Success");

    let none = node.exec("p", "other", "true").await;
    assert_eq!(
        none.status["message"],
        "Internal error occurred: unable to upgrade connection: container not found (\"other\")"
    );
    let missing = node.open(&exec_path("p", "main", "output=1&error=1", &["/nothing"]), V5).await.end().await;
    assert!(matches!(missing.status["details"]["causes"][0]["message"].as_str(), Some("126" | "127")), "{missing:?}");

    // A client that asks for the older protocol gets it, errors as a status too.
    let older = node.open(&exec_path("p", "main", "output=1", &["false"]), "v4.channel.k8s.io").await.end().await;
    assert_eq!(older.status["details"]["causes"][0]["message"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_a_client_that_goes_ends_the_command() {
    let machine = Machinery::start();
    let node = machine.agent();
    machine.pod("p", json!({"containers": [shell("main", WAIT)], "terminationGracePeriodSeconds": 1}));
    machine.running("p").await;

    let path = exec_path("p", "main", "input=1&output=1&tty=1", &["sh"]);
    let mut terminal = node.open(&path, V5).await;
    terminal.send(4, br#"{"Width":123,"Height":45}"#).await;
    terminal.send(0, b"while [ \"$(busybox stty size)\" != '45 123' ]; do sleep 0.1; done; echo size is right\n").await;
    let mut seen = String::new();
    while !seen.contains("\r\nsize is right") {
        let (channel, bytes) = terminal.next().await.expect("the terminal ended");
        assert_eq!(channel, 1);
        seen += &String::from_utf8_lossy(&bytes);
    }
    terminal.send(0, b"exit 5\n").await;
    assert_eq!(terminal.end().await.status["details"]["causes"][0]["message"], "5");

    for (line, streams) in [("sleep 271828", "output=1"), ("sleep 314159", "input=1&output=1&tty=1")] {
        let command: Vec<&str> = line.split(' ').collect();
        let session = node.open(&exec_path("p", "main", streams, &command), V5).await;
        eventually("the command runs", || process_runs(line)).await;
        drop(session);
        eventually("the command is ended", || !process_runs(line)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_joins_the_first_process() {
    let machine = Machinery::start();
    let node = machine.agent();
    let mut echo = shell("echo", "while read line; do echo got $line; [ $line = end ] && exit 0; done");
    echo["stdin"] = json!(true);
    machine.pod("p", json!({"restartPolicy": "Never", "containers": [echo], "terminationGracePeriodSeconds": 1}));
    machine.running("p").await;
    let mut session = node.open("/attach/default/p/echo?input=1&output=1&error=1", V5).await;
    session.send(0, b"hello\n").await;
    let mut seen = String::new();
    while !seen.contains("got hello") {
        seen += &String::from_utf8_lossy(&session.next().await.expect("the session ended").1);
    }
    session.send(0, b"end\n").await;
    let ended = session.end().await;
    assert_eq!(ended.status, json!({"metadata": {}, "status": "Success"}));
    machine.until("p", "done", |pod: &Value| pod["status"]["phase"] == "Succeeded").await;
}
