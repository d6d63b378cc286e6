//! Why a pod is as it is, in one sentence.

use crate::kube::{Container, ContainerStatus, Pod, Terminated, condition};
use crate::state::{Action, Sentence, State};
use crate::time;
use crate::words::{Word, plural, t};

/// The container that a page should look at first: the one that isn't well.
pub fn troubled(pod: &Pod) -> Option<&ContainerStatus> {
    let all = || pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    all()
        .find(|c| c.state.waiting.as_ref().is_some_and(|w| !is_starting(&w.reason)))
        .or_else(|| all().find(|c| c.state.terminated.as_ref().is_some_and(|t| t.exit_code != 0)))
        .or_else(|| pod.status.container_statuses.iter().find(|c| !c.ready))
}

fn is_starting(reason: &str) -> bool {
    matches!(reason, "" | "ContainerCreating" | "PodInitializing")
}

/// The sentence. `silent_since` is set when the pod's node is not heard from: then nothing about it is known.
pub fn sentence(pod: &Pod, silent_since: Option<&str>, now: i64) -> Sentence {
    let status = &pod.status;
    if let Some(deleted) = &pod.metadata.deletion_timestamp {
        return leaving(pod, deleted, silent_since, now);
    }
    match status.phase.as_str() {
        "Succeeded" => return Sentence::new(State::Idle, t(Word::PodSucceeded)),
        "Failed" => return failed(pod),
        _ => {}
    }
    if pod.spec.node_name.is_empty() {
        return unplaced(pod, now);
    }
    if let Some(since) = silent_since {
        let text = Word::PodNodeSilent.with(&[("node", &pod.spec.node_name), ("ago", &time::ago_text(since, now))]);
        return Sentence::new(State::Unknown, text).next(Word::NextLookAtNode, Some(Action::ShowNodes));
    }
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses);
    for container in statuses {
        if let Some(waiting) = container.state.waiting.as_ref().filter(|w| !is_starting(&w.reason)) {
            return stuck(container, &waiting.reason, &waiting.message, now);
        }
    }
    let init_failed = status
        .init_container_statuses
        .iter()
        .find_map(|c| Some((c, c.state.terminated.as_ref()?)))
        .filter(|(_, t)| t.exit_code != 0);
    if let Some((container, end)) = init_failed {
        return ended(container, end, now);
    }
    if let Some((container, end)) = status
        .container_statuses
        .iter()
        .find_map(|c| Some((c, c.state.terminated.as_ref().filter(|t| t.exit_code != 0)?)))
    {
        return ended(container, end, now);
    }
    if let Some(container) = status.init_container_statuses.iter().find(|c| c.state.terminated.is_none()) {
        return Sentence::new(State::Progressing, Word::PodInitializing.with(&[("container", &container.name)]));
    }
    if status.container_statuses.is_empty() || status.container_statuses.iter().any(|c| c.state.waiting.is_some()) {
        return Sentence::new(State::Progressing, Word::PodStarting.with(&[("node", &pod.spec.node_name)]));
    }
    running(pod, now)
}

fn leaving(pod: &Pod, deleted: &str, silent_since: Option<&str>, now: i64) -> Sentence {
    if silent_since.is_some() {
        let text =
            Word::PodLeavingUnconfirmed.with(&[("node", &pod.spec.node_name), ("ago", &time::ago_text(deleted, now))]);
        return Sentence::new(State::Unknown, text).next(Word::NextLookAtNode, Some(Action::ShowNodes));
    }
    // The deletion timestamp is when the grace period is over.
    let overdue = time::parse(deleted).map(|over| now - over).filter(|late| *late > 30_000);
    match overdue {
        Some(late) if !pod.metadata.finalizers.is_empty() => Sentence::new(
            State::Degraded,
            Word::PodLeavingFinalizers
                .with(&[("finalizers", &pod.metadata.finalizers.join(", ")), ("span", &time::span(late))]),
        ),
        Some(late) => Sentence::new(State::Degraded, Word::PodLeavingLate.with(&[("span", &time::span(late))])),
        None => Sentence::new(State::Progressing, t(Word::PodLeaving)),
    }
}

fn failed(pod: &Pod) -> Sentence {
    let status = &pod.status;
    if status.reason == "Evicted" {
        return Sentence::new(State::Failing, t(Word::PodEvicted)).evidence(&status.message);
    }
    let end = status.container_statuses.iter().find_map(|c| Some((c, c.state.terminated.as_ref()?)));
    match end {
        Some((container, end)) => {
            let text = Word::PodFailedContainer.with(&[("container", &container.name), ("exit", &exit(end))]);
            Sentence::new(State::Failing, text)
                .evidence(end.message.trim())
                .next(Word::NextReadLogs, Some(Action::Logs))
        }
        None => Sentence::new(State::Failing, t(Word::PodFailed)).evidence(if status.message.is_empty() {
            &status.reason
        } else {
            &status.message
        }),
    }
}

fn unplaced(pod: &Pod, now: i64) -> Sentence {
    let scheduled = condition(&pod.status.conditions, "PodScheduled").filter(|c| c.status == "False");
    let Some(scheduled) = scheduled else {
        return Sentence::new(State::Progressing, t(Word::PodUnplaced));
    };
    let waited = time::parse(&pod.metadata.creation_timestamp).map_or_else(String::new, |made| time::span(now - made));
    let message = scheduled.message.as_str();
    // What follows says why nobody can make room.
    let why = message.split(" preemption:").next().unwrap_or_default();
    let said = |text: &str| why.contains(text);
    let (word, next, action) = if message.starts_with("0/0 nodes") || said("no nodes available") {
        (Word::PodNoNodes, Word::NextAddNode, Action::AddNode)
    } else if said("Insufficient") {
        (Word::PodNoRoom, Word::NextRoom, Action::AddNode)
    } else if said("unschedulable") {
        (Word::PodNodesCordoned, Word::NextUncordon, Action::ShowNodes)
    } else if said("unreachable") || said("not-ready") {
        (Word::PodNodesAway, Word::NextLookAtNodes, Action::ShowNodes)
    } else if said("untolerated taint") {
        (Word::PodTaints, Word::NextTolerate, Action::EditYaml)
    } else if said("anti-affinity rules") {
        (Word::PodBadCompany, Word::NextCompany, Action::EditYaml)
    } else if said("pod affinity rules") {
        (Word::PodNoCompany, Word::NextCompany, Action::EditYaml)
    } else if said("topology spread") {
        (Word::PodSkewed, Word::NextCompany, Action::EditYaml)
    } else if said("affinity") || said("selector") {
        (Word::PodAffinity, Word::NextAffinity, Action::EditYaml)
    } else {
        (Word::PodNowhere, Word::NextLookAtNodes, Action::ShowNodes)
    };
    Sentence::new(State::Degraded, word.with(&[("span", &waited)])).evidence(message).next(next, Some(action))
}

/// A container that waits for a reason that won't pass by itself.
fn stuck(container: &ContainerStatus, reason: &str, message: &str, now: i64) -> Sentence {
    let name = &container.name;
    match reason {
        "CrashLoopBackOff" => {
            let last = container.last_state.terminated.as_ref();
            let how = last.map_or_else(|| t(Word::ExitUnknown).to_string(), exit);
            let when = last.map_or_else(|| t(Word::Unknown).into(), |l| time::ago_text(&l.finished_at, now));
            let text = Word::PodCrashing.with(&[
                ("container", name),
                ("exit", &how),
                ("ago", &when),
                ("restarts", &plural(Word::Restarts, container.restart_count)),
            ]);
            let evidence = last.map(|l| l.message.trim()).filter(|m| !m.is_empty()).unwrap_or(message);
            Sentence::new(State::Failing, text)
                .evidence(evidence)
                .next(Word::NextReadLastLogs, Some(Action::PreviousLogs))
        }
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError" => {
            let word = match reason {
                "ErrImageNeverPull" => Word::PodImageAbsent,
                "InvalidImageName" => Word::PodImageName,
                _ => Word::PodImagePull,
            };
            let text = word.with(&[("image", &container.image), ("container", name)]);
            Sentence::new(State::Failing, text).evidence(message).next(Word::NextImage, Some(Action::ChangeImage))
        }
        "CreateContainerConfigError" => Sentence::new(State::Failing, Word::PodConfig.with(&[("container", name)]))
            .evidence(message)
            .next(Word::NextConfig, Some(Action::EditYaml)),
        _ => Sentence::new(State::Failing, Word::PodCannotStart.with(&[("container", name), ("reason", &reason)]))
            .evidence(message)
            .next(Word::NextEdit, Some(Action::EditYaml)),
    }
}

fn ended(container: &ContainerStatus, end: &Terminated, now: i64) -> Sentence {
    let text = Word::PodEnded.with(&[
        ("container", &container.name),
        ("exit", &exit(end)),
        ("ago", &time::ago_text(&end.finished_at, now)),
    ]);
    Sentence::new(State::Failing, text).evidence(end.message.trim()).next(Word::NextReadLogs, Some(Action::Logs))
}

fn running(pod: &Pod, now: i64) -> Sentence {
    let status = &pod.status;
    let ready = condition(&status.conditions, "Ready");
    if let Some(container) = status.container_statuses.iter().find(|c| !c.ready) {
        let text = Word::PodNotReady.with(&[("container", &container.name)]);
        let evidence = ready.map(|c| c.message.as_str()).unwrap_or_default();
        return Sentence::new(State::Degraded, text).evidence(evidence).next(Word::NextProbe, Some(Action::Logs));
    }
    if let Some(ready) = ready.filter(|c| c.status != "True") {
        return Sentence::new(State::Degraded, t(Word::PodNotReadyPod)).evidence(&ready.message);
    }
    let since = status
        .container_statuses
        .iter()
        .filter_map(|c| time::parse(&c.state.running.as_ref()?.started_at))
        .max()
        .map_or_else(|| t(Word::Unknown).into(), |since| time::ago(since, now));
    let restarted = status.container_statuses.iter().max_by_key(|c| c.restart_count).filter(|c| c.restart_count > 0);
    match restarted.and_then(|c| Some((c, c.last_state.terminated.as_ref()?))) {
        Some((container, last)) => Sentence::new(
            State::Good,
            Word::PodRunningRestarted.with(&[
                ("node", &pod.spec.node_name),
                ("ago", &since),
                ("restarts", &plural(Word::Restarts, container.restart_count)),
                ("exit", &exit(last)),
            ]),
        ),
        None => Sentence::new(State::Good, Word::PodRunning.with(&[("node", &pod.spec.node_name), ("ago", &since)])),
    }
}

/// How a container ended: its code and what that means.
pub fn exit(end: &Terminated) -> String {
    if end.reason == "OOMKilled" {
        return t(Word::ExitOom).into();
    }
    let meaning = match end.exit_code {
        0 => Word::ExitDone,
        1 => Word::ExitError,
        2 => Word::ExitUsage,
        126 => Word::ExitNotExecutable,
        127 => Word::ExitNotFound,
        128 if end.reason == "StartError" || end.reason == "ContainerCannotRun" => Word::ExitNotFound,
        130 => Word::ExitInterrupted,
        134 => Word::ExitAborted,
        137 => Word::ExitKilled,
        139 => Word::ExitSegfault,
        143 => Word::ExitTerminated,
        code if code > 128 && code < 160 => {
            return Word::ExitSignal.with(&[("code", &code), ("signal", &(code - 128))]);
        }
        code => return Word::ExitCode.with(&[("code", &code)]),
    };
    Word::ExitMeaning.with(&[("code", &end.exit_code), ("meaning", &t(meaning))])
}

/// A container's state in words, and how well it is.
pub fn container(status: &ContainerStatus, now: i64) -> (State, String) {
    let state = &status.state;
    if let Some(waiting) = &state.waiting {
        let well = if is_starting(&waiting.reason) { State::Progressing } else { State::Failing };
        let reason = if waiting.reason.is_empty() { t(Word::Waiting) } else { &waiting.reason };
        return (well, Word::ContainerWaiting.with(&[("reason", &reason)]));
    }
    if let Some(end) = &state.terminated {
        let well = if end.exit_code == 0 { State::Idle } else { State::Failing };
        let ago = time::ago_text(&end.finished_at, now);
        return (well, Word::ContainerEnded.with(&[("exit", &exit(end)), ("ago", &ago)]));
    }
    if let Some(running) = &state.running {
        let well = if status.ready { State::Good } else { State::Degraded };
        let word = if status.ready { Word::ContainerRunning } else { Word::ContainerRunningUnready };
        return (well, word.with(&[("ago", &time::ago_text(&running.started_at, now))]));
    }
    (State::Unknown, t(Word::Unknown).into())
}

/// What the page asks logs for first: the troubled container, else the first one.
pub fn log_container(pod: &Pod) -> String {
    let first = || pod.spec.containers.first().map(|c: &Container| c.name.clone());
    troubled(pod).map(|c| c.name.clone()).or_else(first).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use serde_json::{Value, json};

    const NOW: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z

    fn pod(spec: Value, status: Value) -> Pod {
        let metadata = json!({"name": "web-1", "creationTimestamp": "2025-12-31T23:55:00Z"});
        Read::read(&json!({"metadata": metadata, "spec": spec, "status": status}))
    }
    fn placed(status: Value) -> Pod {
        pod(json!({"nodeName": "n1", "containers": [{"name": "web", "image": "x:1"}]}), status)
    }
    fn waiting(reason: &str, message: &str, last: Value) -> Pod {
        placed(json!({"phase": "Pending", "containerStatuses": [{"name": "web", "image": "x:1", "restartCount": 4,
            "state": {"waiting": {"reason": reason, "message": message}}, "lastState": last}]}))
    }
    fn says(pod: &Pod) -> (State, String) {
        let sentence = sentence(pod, None, NOW);
        (sentence.state, sentence.text)
    }

    #[test]
    fn pending_for_want_of_room_says_so_with_the_schedulers_words() {
        let message = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available";
        let pod = pod(
            json!({}),
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}),
        );
        let sentence = sentence(&pod, None, NOW);
        assert_eq!(sentence.state, State::Degraded);
        assert!(sentence.text.contains("5 minutes"), "{}", sentence.text);
        assert_eq!(sentence.evidence.as_deref(), Some(message));
        assert_eq!(sentence.next.unwrap().action, Some(Action::AddNode));
    }

    #[test]
    fn pending_because_of_other_pods_is_not_for_want_of_labels() {
        let say = |reason: &str| {
            let message = format!(
                "0/2 nodes are available: 2 {reason}. preemption: 0/2 nodes are available: 2 Insufficient cpu."
            );
            let condition =
                json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
            says(&pod(json!({}), json!({"phase": "Pending", "conditions": [condition]}))).1
        };
        for (reason, word) in [
            ("node(s) didn't match pod anti-affinity rules", Word::PodBadCompany),
            ("node(s) didn't satisfy existing pods anti-affinity rules", Word::PodBadCompany),
            ("node(s) didn't match pod affinity rules", Word::PodNoCompany),
            ("node(s) didn't match pod topology spread constraints", Word::PodSkewed),
            ("node(s) didn't match Pod's node affinity/selector", Word::PodAffinity),
        ] {
            assert_eq!(say(reason), word.with(&[("span", &"5 minutes")]), "{reason}");
        }
    }

    #[test]
    fn a_crash_loop_names_container_code_and_restarts() {
        let pod = waiting(
            "CrashLoopBackOff",
            "back-off 40s",
            json!({"terminated": {"exitCode": 1, "message": "panic: no database\n", "finishedAt": "2025-12-31T23:59:00Z"}}),
        );
        let sentence = sentence(&pod, None, NOW);
        assert_eq!(sentence.state, State::Failing);
        for part in ["web", "code 1", "1 minute ago", "4 restarts"] {
            assert!(sentence.text.contains(part), "{part}: {}", sentence.text);
        }
        assert_eq!(sentence.evidence.as_deref(), Some("panic: no database"));
        assert_eq!(sentence.next.unwrap().action, Some(Action::PreviousLogs));
    }

    #[test]
    fn images_that_cannot_be_pulled_quote_the_registry() {
        let sentence = sentence(&waiting("ImagePullBackOff", "Back-off pulling image \"x:1\"", json!({})), None, NOW);
        assert_eq!(sentence.state, State::Failing);
        assert!(sentence.text.contains("x:1"));
        assert_eq!(sentence.next.unwrap().action, Some(Action::ChangeImage));
    }

    #[test]
    fn nothing_on_a_silent_node_is_called_healthy() {
        let pod = placed(
            json!({"phase": "Running", "containerStatuses": [{"name": "web", "ready": true, "state": {"running": {"startedAt": "2025-12-31T23:56:00Z"}}}]}),
        );
        assert_eq!(says(&pod).0, State::Good);
        let silent = sentence(&pod, Some("2025-12-31T23:57:00Z"), NOW);
        assert_eq!(silent.state, State::Unknown);
        assert!(silent.text.contains("3 minutes ago"), "{}", silent.text);
    }

    #[test]
    fn starting_is_progress_and_not_ready_is_not_good() {
        assert_eq!(says(&waiting("ContainerCreating", "", json!({}))).0, State::Progressing);
        let unready = placed(
            json!({"phase": "Running", "containerStatuses": [{"name": "web", "ready": false, "state": {"running": {"startedAt": "2025-12-31T23:56:00Z"}}}]}),
        );
        assert_eq!(says(&unready).0, State::Degraded);
        assert_eq!(says(&placed(json!({"phase": "Succeeded"}))).0, State::Idle);
        assert_eq!(
            says(&placed(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}))).0,
            State::Failing
        );
    }

    #[test]
    fn deletion_that_takes_too_long_is_said() {
        let mut pod = placed(json!({"phase": "Running"}));
        pod.metadata.deletion_timestamp = Some("2026-01-01T00:00:10Z".into());
        assert_eq!(says(&pod).0, State::Progressing);
        pod.metadata.deletion_timestamp = Some("2025-12-31T23:50:00Z".into());
        assert_eq!(says(&pod).0, State::Degraded);
        assert_eq!(sentence(&pod, Some("2025-12-31T23:40:00Z"), NOW).state, State::Unknown);
    }

    #[test]
    fn exit_codes_are_explained() {
        let end = |code| Terminated { exit_code: code, ..Terminated::default() };
        assert!(exit(&end(137)).contains("killed"));
        assert!(exit(&end(127)).contains("not found"));
        assert!(exit(&end(133)).contains("signal 5"));
        assert!(exit(&end(42)).contains("42"));
        assert!(
            exit(&Terminated { reason: "OOMKilled".into(), exit_code: 137, ..Terminated::default() })
                .contains("memory")
        );
    }
}
