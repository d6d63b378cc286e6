//! `/containerLogs/{namespace}/{pod}/{container}`.

use super::{Body, Query, text};
use crate::node::context::Context;
use crate::pods::spec;
use crate::runtime::{LogOptions, Output};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

pub async fn serve(context: &Context, namespace: &str, pod: &str, container: &str, query: &Query) -> Response<Body> {
    let (options, limit) = match options(query, Timestamp::now()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(known) = context.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist\n"));
    };
    if !spec::containers(&known.pod).any(|(c, _)| c.name == container) {
        return text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}\n"));
    }
    let id = match container_id(&known.status, pod, container, query.flag("previous")) {
        Ok(id) => id,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let output = match context.runtime.logs(&id, &options).await {
        Ok(output) => output,
        Err(error) => {
            tracing::debug!(container = id, %error, "a container's log is not to be had");
            return text(StatusCode::BAD_REQUEST, format!("unable to retrieve container logs for docker://{id}"));
        }
    };
    let bytes = output.map_ok(|part| match part {
        Output::Stdout(bytes) | Output::Stderr(bytes) => bytes,
    });
    let body = StreamBody::new(limited(bytes.boxed(), limit).map_ok(Frame::data));
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// What is asked of the runtime, and how many bytes of it are wanted.
fn options(query: &Query, now: Timestamp) -> Result<(LogOptions, Option<u64>), String> {
    let number = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("unable to decode query: {key}={text}")),
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Some(now.saturating_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH))
        }
        (None, Some(text)) => {
            Some(text.parse::<Timestamp>().map_err(|_| format!("unable to decode query: sinceTime={text}"))?)
        }
        (None, None) => None,
    };
    let stream = query.get("stream").unwrap_or("All");
    let options = LogOptions {
        follow: query.flag("follow"),
        since,
        tail: number("tailLines")?,
        timestamps: query.flag("timestamps"),
        stdout: stream != "Stderr",
        stderr: stream != "Stdout",
    };
    Ok((options, number("limitBytes")?))
}

/// Which container's log is meant: what runs or ran last, or with `previous` the one before. `Err`: why there is none.
fn container_id(status: &PodStatus, pod: &str, name: &str, previous: bool) -> Result<String, String> {
    let all = status.container_statuses.iter().chain(status.init_container_statuses.iter()).flatten();
    let Some(found) = all.into_iter().find(|s| s.name == name) else {
        return Err(format!("container {name:?} in pod {pod:?} is not available"));
    };
    let plain = |id: &Option<String>| {
        let id = id.as_deref().unwrap_or_default();
        Some(id.split_once("://").map_or(id, |(_, id)| id).to_owned()).filter(|id| !id.is_empty())
    };
    let ContainerStatus { state, last_state, container_id, .. } = found;
    let (state, last) = (state.clone().unwrap_or_default(), last_state.clone().and_then(|s| s.terminated));
    let last_id = last.as_ref().and_then(|t| plain(&t.container_id));
    if previous {
        return last_id.ok_or_else(|| format!("previous terminated container {name:?} in pod {pod:?} not found"));
    }
    if state.running.is_some() {
        return plain(container_id).ok_or_else(|| format!("container {name:?} in pod {pod:?} is not available"));
    }
    let ended = || format!("container {name:?} in pod {pod:?} is terminated");
    if let Some(terminated) = &state.terminated {
        return plain(&terminated.container_id).or(last_id).ok_or_else(ended);
    }
    if last.is_some() {
        return last_id.ok_or_else(ended);
    }
    let reason = state.waiting.and_then(|w| w.reason);
    Err(match reason.as_deref() {
        Some("ErrImagePull") => format!("container {name:?} in pod {pod:?} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => {
            format!("container {name:?} in pod {pod:?} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"),
        None => format!("container {name:?} in pod {pod:?} is waiting to start - no logs yet"),
    })
}

/// Ends after `limit` bytes, without waiting for more to come.
fn limited(
    bytes: BoxStream<'static, std::io::Result<Bytes>>,
    limit: Option<u64>,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    let Some(limit) = limit else { return bytes };
    futures::stream::try_unfold((bytes, limit), |(mut bytes, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(mut part) = bytes.try_next().await? else { return Ok(None) };
        part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - part.len() as u64;
        Ok(Some((part, (bytes, left))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(status: Value, previous: bool) -> Result<String, String> {
        let status = serde_json::from_value(json!({"containerStatuses": [status]})).unwrap();
        container_id(&status, "p", "c", previous)
    }

    fn status(id: &str, state: Value, last: Value) -> Value {
        json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "containerID": id,
            "state": state, "lastState": last})
    }

    #[test]
    fn the_container_that_runs_or_ran_last_is_read() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": id}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let running = json!({"running": {}});
        assert_eq!(of(status("docker://b", running.clone(), ended("docker://a")), false).unwrap(), "b");
        assert_eq!(of(status("docker://b", running.clone(), ended("docker://a")), true).unwrap(), "a");
        assert_eq!(of(status("docker://b", ended("docker://b"), json!({})), false).unwrap(), "b");
        let crashed = status("docker://b", waiting("CrashLoopBackOff"), ended("docker://b"));
        assert_eq!(of(crashed.clone(), false).unwrap(), "b");
        assert_eq!(of(crashed, true).unwrap(), "b");
        for (state, previous, message) in [
            (running, true, "previous terminated container \"c\" in pod \"p\" not found"),
            (
                waiting("ContainerCreating"),
                false,
                "container \"c\" in pod \"p\" is waiting to start: ContainerCreating",
            ),
            (waiting("ErrImagePull"), false, "container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
            (
                waiting("ImagePullBackOff"),
                false,
                "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image",
            ),
            (json!({}), false, "container \"c\" in pod \"p\" is waiting to start - no logs yet"),
        ] {
            assert_eq!(of(status("docker://b", state, json!({})), previous).unwrap_err(), message);
        }
        let other = json!({"name": "d", "image": "", "imageID": "", "ready": false, "restartCount": 0});
        assert_eq!(of(other, false).unwrap_err(), "container \"c\" in pod \"p\" is not available");
    }

    #[test]
    fn options_as_the_query_has_them() {
        let now: Timestamp = "2030-01-01T00:01:00Z".parse().unwrap();
        let of = |text: &str| options(&Query::parse(text), now);
        let (all, limit) = of("follow=true&tailLines=5&timestamps=1&limitBytes=10&sinceSeconds=60").unwrap();
        assert_eq!((all.follow, all.tail, all.timestamps, limit), (true, Some(5), true, Some(10)));
        assert_eq!(all.since, Some("2030-01-01T00:00:00Z".parse().unwrap()));
        assert!((all.stdout, all.stderr) == (true, true));
        let (errors, _) = of("stream=Stderr&follow=false&sinceTime=2029-01-01T00:00:00Z").unwrap();
        assert_eq!((errors.follow, errors.stdout, errors.stderr), (false, false, true));
        for bad in ["tailLines=-1", "tailLines=x", "sinceTime=yesterday"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of(&format!("sinceSeconds={}", i64::MAX)).is_ok());
    }

    #[tokio::test]
    async fn a_limit_ends_the_stream_without_waiting() {
        let parts = [Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))];
        let endless = futures::stream::iter(parts).chain(futures::stream::pending()).boxed();
        let got: Vec<Bytes> = limited(endless, Some(4)).try_collect().await.unwrap();
        assert_eq!(got.concat(), b"abcd");
    }
}
