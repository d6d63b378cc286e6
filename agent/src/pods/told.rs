//! What the server knows of a pod's status. Pure.
//!
//! A word whose answer never came may have been taken all the same, also long after later ones: a commit that waited, a
//! message that was late. So it isn't enough to remember what was said. Each object that comes back is compared with how
//! the server held the status before; a field that changed without us is one that the server knows otherwise now. (Compared
//! with the server's own form, since it may write an amount in another way than we do.)

use super::{spec, status};
use k8s_openapi::api::core::v1::PodStatus;

/// For each field that the node alone says. Of the conditions only some are its own ([`status::overruled`]).
macro_rules! own_fields {
    ($each:ident) => {
        $each!(phase reason message container_statuses init_container_statuses host_ip host_ips pod_ip pod_ips
               start_time qos_class observed_generation)
    };
}

#[derive(Debug)]
pub struct Told {
    /// What the server knows, in our words.
    said: PodStatus,
    /// The same as it holds it.
    held: PodStatus,
}

impl Told {
    pub fn new(held: PodStatus) -> Self {
        Self { said: held.clone(), held }
    }

    /// What the server knows.
    pub fn said(&self) -> &PodStatus {
        &self.said
    }

    /// The server has taken what turns `before` into `now`, and holds `held` since.
    pub fn taken(&mut self, before: &PodStatus, now: PodStatus, held: &PodStatus) {
        let mut said = now;
        macro_rules! take {
            ($($field:ident)*) => { $(
                // What was no part of it is as true as it was.
                if said.$field == before.$field {
                    said.$field = self.said.$field.clone();
                } else {
                    self.held.$field = held.$field.clone();
                }
            )* };
        }
        own_fields!(take);
        self.said = said;
    }

    /// Compares with what the server holds. Whether something is to be said anew.
    pub fn hear(&mut self, held: &PodStatus) -> bool {
        let mut any = status::overruled(&mut self.said, held);
        // A last word that others said over ours (the node was taken for dead) isn't taken back.
        if !spec::is_final(held) || spec::is_final(&self.said) {
            macro_rules! compare {
                ($($field:ident)*) => { $(
                    if held.$field != self.held.$field {
                        self.said.$field = held.$field.clone();
                        any = true;
                    }
                )* };
            }
            own_fields!(compare);
        }
        self.held = held.clone();
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(status: Value) -> PodStatus {
        serde_json::from_value(status).unwrap()
    }

    fn container(ready: bool, cpu: &str) -> Value {
        json!([{"name": "c", "image": "web", "imageID": "", "ready": ready, "restartCount": 0, "resources": {"requests": {"cpu": cpu}}}])
    }

    /// What there is to say.
    fn missing(told: &Told, now: &PodStatus) -> Option<Value> {
        status::patch("u", told.said(), now).map(|patch| patch["status"].clone())
    }

    #[test]
    fn an_old_word_that_is_taken_late_is_put_right() {
        let running = of(json!({"phase": "Running", "containerStatuses": container(true, "1")}));
        let mut told = Told::new(running.clone());
        // "Pending" was said, and no answer came. It runs again: as far as we know, the server never heard of it.
        assert_eq!(missing(&told, &running), None);
        assert!(told.hear(&of(json!({"phase": "Pending", "containerStatuses": container(true, "1")}))));
        assert_eq!(missing(&told, &running), Some(json!({"phase": "Running"})));
    }

    #[test]
    fn an_old_word_that_was_taken_before_a_new_one_is_found_in_its_answer() {
        let before = of(json!({"phase": "Running", "containerStatuses": container(false, "1")}));
        let now = of(json!({"phase": "Running", "containerStatuses": container(true, "1")}));
        let mut told = Told::new(before.clone());
        let held = of(json!({"phase": "Pending", "containerStatuses": container(true, "1")}));
        told.taken(&before, now.clone(), &held);
        assert!(told.hear(&held));
        assert_eq!(missing(&told, &now), Some(json!({"phase": "Running"})));
        let held = of(json!({"phase": "Running", "containerStatuses": container(true, "1")}));
        let before = told.said().clone();
        told.taken(&before, now.clone(), &held);
        assert!(!told.hear(&held));
        assert_eq!(missing(&told, &now), None);
    }

    #[test]
    fn another_form_of_what_was_said_is_no_news() {
        let (before, now) = (PodStatus::default(), of(json!({"containerStatuses": container(true, "1000m")})));
        let mut told = Told::new(before.clone());
        let held = of(json!({"containerStatuses": container(true, "1")}));
        told.taken(&before, now.clone(), &held);
        assert!(!told.hear(&held));
        assert!(!told.hear(&held), "nor when it comes by the watch, too");
        assert_eq!(missing(&told, &now), None);
    }

    #[test]
    fn fields_of_others_are_left_alone() {
        let mut told = Told::new(of(json!({"phase": "Pending", "nominatedNodeName": "n"})));
        let last = told.said().clone();
        assert!(!told.hear(&of(json!({"phase": "Pending"}))));
        assert_eq!(missing(&told, &last), None);
    }

    #[test]
    fn a_last_word_of_others_is_not_taken_back() {
        let running = of(json!({"phase": "Running"}));
        let mut told = Told::new(running.clone());
        assert!(!told.hear(&of(json!({"phase": "Failed"}))));
        assert_eq!(missing(&told, &running), None);
    }
}
