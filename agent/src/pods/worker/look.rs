//! What the worker finds out about containers beside their state: their last words, their images' names.

use super::Worker;
use crate::pods::spec;
use crate::runtime::{LogOptions, Output, Record};
use crate::volumes;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::io::Read;

/// How much of a termination message is kept, as in Kubernetes.
const LONGEST_MESSAGE: u64 = 4096;
/// How much of a log stands in for a missing message.
const LONGEST_TAIL: usize = 2048;
const LINES_OF_TAIL: u64 = 80;

#[derive(Default)]
pub struct Findings {
    /// Termination messages by container id; an empty one was looked for and not found.
    pub messages: BTreeMap<String, String>,
    /// Names with digests by image id, where an image has one.
    pub image_ids: BTreeMap<String, String>,
    images: Vec<String>,
}

impl Worker {
    pub(super) async fn look(&mut self, pod: &Pod, records: &[Record]) {
        if !self.context.runtime.is_real() {
            return;
        }
        self.findings.messages.retain(|id, _| records.iter().any(|r| &r.id == id));
        for record in records {
            if record.exit().is_some() && !self.findings.messages.contains_key(&record.id) {
                let container = spec::containers(pod).map(|(c, _)| c).find(|c| c.name == record.name);
                let message = match container {
                    Some(container) => self.last_words(pod, container, record).await,
                    None => String::new(),
                };
                self.findings.messages.insert(record.id.clone(), message);
            }
            if !record.image_id.is_empty() && !self.findings.images.contains(&record.image_id) {
                // Unknown or without a digest (made on this machine): asked once.
                let Ok(found) = self.context.runtime.image(&record.image_id).await else { continue };
                self.findings.images.push(record.image_id.clone());
                let digest = found.and_then(|image| image.names.into_iter().find(|name| name.contains('@')));
                self.findings.image_ids.extend(digest.map(|name| (record.image_id.clone(), name)));
            }
        }
    }

    async fn last_words(&self, pod: &Pod, container: &Container, record: &Record) -> String {
        let path = volumes::termination_file(&self.context, pod, &record.name, record.attempt);
        let mut bytes = Vec::new();
        if let Ok(file) = std::fs::File::open(path) {
            let _ = file.take(LONGEST_MESSAGE).read_to_end(&mut bytes);
        }
        let failed = record.exit().is_some_and(|e| e.code != 0);
        if bytes.is_empty()
            && failed
            && container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
        {
            bytes = self.tail(&record.id).await;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn tail(&self, id: &str) -> Vec<u8> {
        let options = LogOptions { tail: Some(LINES_OF_TAIL), stdout: true, stderr: true, ..Default::default() };
        let Ok(mut output) = self.context.runtime.logs(id, &options).await else { return Vec::new() };
        let mut tail = Vec::new();
        while let Some(Ok(Output::Stdout(part) | Output::Stderr(part))) = output.next().await {
            tail.extend_from_slice(&part);
            let surplus = tail.len().saturating_sub(LONGEST_TAIL);
            tail.drain(..surplus);
        }
        tail
    }
}
