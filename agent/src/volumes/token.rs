//! Service account tokens of pods: asked from the server, kept, renewed well before they run out.

use super::content::{self, Tokens};
use crate::node::context::Context;
use crate::pods::{desired, spec};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, PostParams};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    audience: String,
    seconds: i64,
    token: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Kept {
    /// At four fifths of its life, at most a day old: as the kubelet does it.
    fn renew_at(&self) -> Timestamp {
        let life = self.expires.duration_since(self.issued);
        self.issued + (life * 4 / 5).min(SignedDuration::from_hours(24))
    }
}

fn file(context: &Context, pod: &Pod) -> PathBuf {
    context.data_dir.join("desired").join("tokens").join(format!("{}.json", spec::uid(pod)))
}

/// The tokens for a pod's volumes and when to call again. A token that is still good outlives a refusal to renew it.
pub async fn fetch(context: &Context, pod: &Pod, now: Timestamp) -> Result<(Tokens, Option<Timestamp>), String> {
    let wanted = content::tokens(pod);
    if wanted.is_empty() {
        return Ok((Tokens::new(), None));
    }
    let path = file(context, pod);
    let mut kept: Vec<Kept> = desired::read(&path).unwrap_or_default();
    let mut changed = false;
    let (mut tokens, mut next) = (Tokens::new(), None::<Timestamp>);
    for projection in wanted {
        let key = content::token_key(projection);
        let at = kept.iter().position(|k| (&k.audience, k.seconds) == (&key.0, key.1));
        let current = at.map(|i| kept[i].clone());
        let token = match current {
            Some(current) if now < current.renew_at() => current,
            current => match request(context, pod, &key.0, key.1, now).await {
                Ok(fresh) => {
                    at.map(|i| kept.remove(i));
                    kept.push(fresh.clone());
                    changed = true;
                    fresh
                }
                Err(message) => match current.filter(|c| now < c.expires) {
                    Some(current) => current,
                    None => return Err(format!("failed to fetch token: {message}")),
                },
            },
        };
        // A refused renewal is tried again in a while.
        let at = token.renew_at().max(now + SignedDuration::from_secs(30));
        next = Some(next.map_or(at, |n| n.min(at)));
        tokens.insert(key, token.token);
    }
    if changed && let Err(e) = desired::write(&path, &kept) {
        tracing::warn!(error = %e, "a token could not be kept on disk");
    }
    Ok((tokens, next))
}

async fn request(context: &Context, pod: &Pod, audience: &str, seconds: i64, now: Timestamp) -> Result<Kept, String> {
    let account = pod
        .spec
        .as_ref()
        .and_then(|s| s.service_account_name.as_deref())
        .filter(|n| !n.is_empty())
        .unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), spec::namespace(pod));
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: (!audience.is_empty()).then(|| vec![audience.to_owned()]),
            attestations: None,
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..Default::default()
    };
    let answer: TokenRequest =
        api.create_subresource("token", account, &PostParams::default(), &request).await.map_err(|e| e.to_string())?;
    let status = answer.status.ok_or("the server answered without a token")?;
    let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err("the server answered without a token".into());
    };
    Ok(Kept { audience: audience.to_owned(), seconds, token, issued: now, expires: expires.0 })
}

pub fn forget(context: &Context, pod: &Pod) {
    let _ = std::fs::remove_file(file(context, pod));
}
