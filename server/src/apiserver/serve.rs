//! From a verb on a resource to the core and back: the handlers of the Kubernetes API's requests.

use super::answer::{self, Form};
use super::api::{Api, Context, Deleted, Written};
use super::apply;
use super::authorize::Attributes;
use super::binding::Binding;
use super::body::Received;
use super::decisions;
use super::decode::{self, Decoded, Target};
use super::delete;
use super::discovery::{Virtual, virtual_resource};
use super::frames::Chunk;
use super::negotiate::{self, Encoding};
use super::options::{
    CreateOptions, DeleteOptions, FieldValidation, GetOptions, ListOptions, PatchOptions, UpdateOptions, WatchOptions,
};
use super::patch::PatchKind;
use super::read::Page;
use super::render::View;
use super::router::{Call, Shell, accept_of, allow};
use super::streams::Upgrading;
use super::write::Patch;
use super::{reviews, scale};
use crate::accounts::Authenticator;
use crate::resources::{Resource, Subresource};
use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Response, StatusCode};
use longshore_api::Status;
use serde_json::{Value, json};
use std::convert::Infallible;

/// Bodies from this size on are decoded off the reactor.
const HEAVY_BODY: usize = 64 * 1024;

/// What a path names.
#[derive(Clone, Copy)]
pub(super) enum Endpoint {
    Whole(&'static Resource),
    Part(&'static Resource, &'static Subresource),
    Virtual(&'static Virtual),
    /// Why a pod is where it is: ours, not Kubernetes's.
    Scheduling,
}

/// Finds it, and checks that it has the verb.
pub(super) fn target(api: &Api, asked: &Attributes) -> Result<Endpoint, Status> {
    if decisions::as_pod(asked).is_some() {
        return if asked.verb == "get" { Ok(Endpoint::Scheduling) } else { Err(Status::method_not_allowed()) };
    }
    let (group, version, plural) = (asked.group.as_str(), asked.version.as_str(), asked.resource.as_str());
    let (endpoint, verbs, namespaced) = match api.registry.by_path(group, version, plural) {
        Some(resource) if asked.subresource.is_empty() => {
            (Endpoint::Whole(resource), resource.verbs, resource.namespaced)
        }
        Some(resource) => {
            let part = resource.subresources.iter().find(|s| s.name == asked.subresource);
            let part = part.ok_or_else(Status::no_such_path)?;
            (Endpoint::Part(resource, part), part.verbs, resource.namespaced)
        }
        None => {
            let found = virtual_resource(group, version, plural).ok_or_else(Status::no_such_path)?;
            (Endpoint::Virtual(found), &["create"][..], found.namespaced)
        }
    };
    // Across namespaces one can only look; a cluster-scoped kind lies in none.
    let across = matches!(asked.verb.as_str(), "list" | "watch");
    let wrong_place = match namespaced {
        true => asked.namespace.is_empty() && !across,
        false => !asked.namespace.is_empty(),
    };
    if wrong_place && !(namespaced && asked.verb == "create" && matches!(endpoint, Endpoint::Virtual(_))) {
        return Err(match namespaced && asked.verb != "get" && asked.subresource.is_empty() {
            true => Status::method_not_allowed(),
            false => Status::no_such_path(),
        });
    }
    // A name belongs in the path of what changes one object, and not in that of a create.
    let whole = matches!(endpoint, Endpoint::Whole(_));
    let misnamed = match asked.verb.as_str() {
        "update" | "patch" => asked.name.is_empty(),
        "create" => whole && !asked.name.is_empty(),
        _ => false,
    };
    if misnamed {
        return Err(Status::method_not_allowed());
    }
    match verbs.contains(&asked.verb.as_str()) {
        true => Ok(endpoint),
        false => Err(Status::method_not_allowed()),
    }
}

impl<A: Authenticator> Shell<A> {
    pub(super) async fn serve(&self, call: Call, endpoint: Endpoint, body: Body) -> Result<Response<Body>, Status> {
        match endpoint {
            Endpoint::Whole(resource) => match call.asked.verb.as_str() {
                "get" => self.get(call, resource).await,
                "list" => self.list(call, resource).await,
                "watch" => self.watch(call, resource).await,
                "create" => self.create(call, resource, body).await,
                "update" => self.update(call, resource, None, body).await,
                "patch" => self.patch(call, resource, None, body).await,
                "delete" => self.delete(call, resource, body).await,
                "deletecollection" => self.delete_collection(call, resource, body).await,
                _ => Err(Status::method_not_allowed()),
            },
            Endpoint::Part(resource, part) => match (part.name, call.asked.verb.as_str()) {
                ("status" | "scale" | "finalize", "update") => self.update(call, resource, Some(part), body).await,
                ("status" | "scale" | "finalize", "patch") => self.patch(call, resource, Some(part), body).await,
                ("status", "get") => self.get(call, resource).await,
                ("scale", "get") => self.get_scale(call, resource).await,
                ("log", "get") => {
                    let Attributes { namespace, name, .. } = &call.asked;
                    self.api.logs(&call.cx, namespace, name, &call.query).await
                }
                (verb @ ("exec" | "attach"), _) => self.stream(call, verb).await,
                ("portforward", _) => self.port_forward(call).await,
                ("proxy", "get") if resource.plural == "nodes" => {
                    self.api.node_paths(&call.cx, &call.asked.name, &call.asked.path, &call.query).await
                }
                ("proxy", _) if resource.plural == "nodes" => Err(Status::method_not_allowed()),
                ("proxy", _) => {
                    let Attributes { resource, namespace, name, path, .. } = &call.asked;
                    self.api.proxy(&call.cx, [resource, namespace, name, path], call.parts, body).await
                }
                ("binding", "create") => self.bind(call, body).await,
                ("eviction", "create") => self.evict(call, body).await,
                ("token", "create") => self.token(call, body).await,
                _ => Err(Status::method_not_allowed()),
            },
            Endpoint::Virtual(found) if found.plural == "bindings" => self.bind(call, body).await,
            Endpoint::Virtual(found) => self.review(call, found, body).await,
            Endpoint::Scheduling => {
                let Attributes { namespace, name, .. } = &call.asked;
                let answer = self.api.scheduling(&call.cx, namespace, name).await?;
                Ok(answer::value(StatusCode::OK, &answer, call.form.encoding))
            }
        }
    }

    async fn get(&self, call: Call, resource: &'static Resource) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        let options = GetOptions { resource_version: call.query.text("resourceVersion").into() };
        let object = self.api.get(&call.cx, resource, &call.asked.namespace, &call.asked.name, &options).await?;
        Ok(answer::bytes(StatusCode::OK, view.object(&object), form.encoding))
    }

    async fn list(&self, call: Call, resource: &'static Resource) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        let options = ListOptions::from_query(&call.query)?;
        let page = self.api.list(&call.cx, resource, namespace(&call), &options).await?;
        self.page(&call.cx, page, view, form).await
    }

    async fn page(&self, cx: &Context, page: Page, view: View, form: Form) -> Result<Response<Body>, Status> {
        let size: usize = page.items.iter().map(|object| object.json.len()).sum();
        let packs = form.gzip && size >= answer::GZIP_FROM;
        if packs || answer::is_heavy(&view, page.items.len(), form) {
            let work = move || answer::pieces(view.list(&page.meta, &page.items), form);
            return self.heavy.run(cx.cluster.id(), work).await;
        }
        Ok(answer::pieces(view.list(&page.meta, &page.items), form))
    }

    async fn watch(&self, call: Call, resource: &'static Resource) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        if form.encoding == Encoding::Yaml {
            return Err(Status::not_acceptable(&["application/json"]));
        }
        let options = WatchOptions::from_query(&call.query)?;
        let watcher = self.api.watch(&call.cx, resource, namespace(&call), &options).await?;
        let (frames, cluster) = (self.frames.clone(), call.cx.cluster.id().clone());
        let chunks = stream::unfold((watcher, true), move |(mut watcher, mut first)| {
            let (frames, cluster) = (frames.clone(), cluster.clone());
            async move {
                let events = watcher.next().await?;
                let view = View { now: jiff::Timestamp::now(), ..view };
                let mut chunk = Chunk::default();
                for event in &events {
                    frames.add(&mut chunk, &cluster, &view, event, first);
                    first = false;
                }
                Some((stream::iter(chunk.pieces().into_iter().map(Ok::<Bytes, Infallible>)), (watcher, first)))
            }
        });
        let chunks = chunks.flatten();
        Ok(answer::with_type(StatusCode::OK, "application/json", Body::from_stream(chunks)))
    }

    async fn create(&self, call: Call, resource: &'static Resource, body: Body) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        let options = CreateOptions::from_query(&call.query)?;
        let validation = FieldValidation::from_query(&call.query, "CreateOptions")?;
        let decoded = self.decoded(&call, body, resource.into(), validation).await?;
        let written = self.api.create(&call.cx, resource, &call.asked.namespace, decoded.tree, &options).await?;
        Ok(answered(&view, form, &written, &decoded.warnings))
    }

    async fn update(
        &self,
        call: Call,
        resource: &'static Resource,
        part: Option<&Subresource>,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        let options = UpdateOptions::from_query(&call.query)?;
        let validation = FieldValidation::from_query(&call.query, "UpdateOptions")?;
        let scales = part.is_some_and(|p| p.name == "scale");
        let target = if scales { Target::SCALE } else { resource.into() };
        let decoded = self.decoded(&call, body, target, validation).await?;
        let Attributes { namespace, name, .. } = &call.asked;
        let part = part.map(|p| p.name);
        let written = self.api.update(&call.cx, resource, namespace, name, part, decoded.tree, &options).await?;
        if scales {
            return scale_answer(resource, &written, form);
        }
        Ok(answered(&view, form, &written, &decoded.warnings))
    }

    async fn apply(
        &self,
        call: Call,
        resource: &'static Resource,
        part: Option<&Subresource>,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        let options = PatchOptions::from_query(&call.query)?;
        options.check(true)?;
        let received = self.budget.read(&call.parts, body).await?;
        let Attributes { namespace, name, .. } = &call.asked;
        let (part, body) = (part.map(|p| p.name), &received.bytes);
        let written = self.api.apply(&call.cx, resource, namespace, name, part, body, &options).await?;
        Ok(answered(&view, form, &written, &[]))
    }

    async fn patch(
        &self,
        call: Call,
        resource: &'static Resource,
        part: Option<&Subresource>,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        if apply::is_spoken(content_type(&call.parts)) {
            return self.apply(call, resource, part, body).await;
        }
        let (view, form) = view(&call, resource)?;
        let kind = PatchKind::of(content_type(&call.parts))?;
        let options = PatchOptions::from_query(&call.query)?;
        options.check(false)?;
        let received = self.budget.read(&call.parts, body).await?;
        let patch = Patch { kind, body: &received.bytes };
        let Attributes { namespace, name, .. } = &call.asked;
        let part = part.map(|p| p.name);
        let written = self.api.patch(&call.cx, resource, namespace, name, part, patch, &options).await?;
        if part == Some("scale") {
            return scale_answer(resource, &written, form);
        }
        Ok(answered(&view, form, &written, &[]))
    }

    async fn delete(&self, call: Call, resource: &'static Resource, body: Body) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        let options = self.delete_options(&call, body).await?;
        let Attributes { namespace, name, .. } = &call.asked;
        let deleted = self.api.delete(&call.cx, resource, namespace, name, &options).await?;
        Ok(match &deleted {
            Deleted::Gone(object) if !delete::answers_with_object(resource) => {
                answer::value(StatusCode::OK, &delete::removal_status(resource, object), form.encoding)
            }
            Deleted::Gone(object) => answer::bytes(StatusCode::OK, view.object(object), form.encoding),
            Deleted::Marked(object) => answer::bytes(delete::marked_code(&options), view.object(object), form.encoding),
        })
    }

    async fn delete_collection(
        &self,
        call: Call,
        resource: &'static Resource,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let (view, form) = view(&call, resource)?;
        let options = self.delete_options(&call, body).await?;
        let list = ListOptions::from_query(&call.query)?;
        let page = self.api.delete_collection(&call.cx, resource, namespace(&call), &list, &options).await?;
        self.page(&call.cx, page, view, form).await
    }

    async fn delete_options(&self, call: &Call, body: Body) -> Result<DeleteOptions, Status> {
        let received = self.budget.read(&call.parts, body).await?;
        if received.bytes.is_empty() {
            return DeleteOptions::from_query(&call.query);
        }
        let target = Target::DELETE_OPTIONS;
        let decoded = decode::body(content_type(&call.parts), &received.bytes, &target, FieldValidation::Ignore)?;
        DeleteOptions::from_body(&decoded.tree)
    }

    async fn get_scale(&self, call: Call, resource: &'static Resource) -> Result<Response<Body>, Status> {
        let (_, form) = view(&call, resource)?;
        let Attributes { namespace, name, .. } = &call.asked;
        let object = self.api.get(&call.cx, resource, namespace, name, &GetOptions::default()).await?;
        Ok(answer::value(StatusCode::OK, &scale::read(resource, &object.tree())?, form.encoding))
    }

    async fn stream(&self, mut call: Call, verb: &str) -> Result<Response<Body>, Status> {
        allow_connecting(&call)?;
        let client = Upgrading::take(&mut call.parts)?;
        let Attributes { namespace, name, .. } = &call.asked;
        self.api.stream(&call.cx, verb, namespace, name, &call.query, client).await
    }

    async fn port_forward(&self, mut call: Call) -> Result<Response<Body>, Status> {
        allow_connecting(&call)?;
        let Attributes { namespace, name, .. } = &call.asked;
        self.api.port_forward(&call.cx, namespace, name, &call.query, &mut call.parts).await
    }

    async fn bind(&self, call: Call, body: Body) -> Result<Response<Body>, Status> {
        let options = CreateOptions::from_query(&call.query)?;
        let decoded = self.decoded(&call, body, Target::BINDING, FieldValidation::Warn).await?;
        let binding = Binding::read(&call.asked.namespace, &call.asked.name, &decoded.tree)?;
        if !options.dry_run {
            self.api.bind(&call.cx, &[binding]).await.into_iter().collect::<Result<(), Status>>()?;
        }
        Ok(answer::value(StatusCode::CREATED, &done(201), encoding(&call)?))
    }

    async fn evict(&self, call: Call, body: Body) -> Result<Response<Body>, Status> {
        let decoded = self.decoded(&call, body, Target::EVICTION, FieldValidation::Warn).await?;
        self.api.evict(&call.cx, &call.asked.namespace, &call.asked.name, &decoded.tree).await?;
        Ok(answer::value(StatusCode::CREATED, &done(201), encoding(&call)?))
    }

    async fn token(&self, call: Call, body: Body) -> Result<Response<Body>, Status> {
        let decoded = self.decoded(&call, body, Target::TOKEN_REQUEST, FieldValidation::Warn).await?;
        let Attributes { namespace, name, .. } = &call.asked;
        let answered = self.api.request_token(&call.cx, namespace, name, decoded.tree).await?;
        Ok(answer::value(StatusCode::CREATED, &answered, encoding(&call)?))
    }

    async fn review(&self, call: Call, found: &'static Virtual, body: Body) -> Result<Response<Body>, Status> {
        let target =
            Target { group: found.group, version: found.version, kind: found.kind, type_name: found.type_name };
        let decoded = self.decoded(&call, body, target, FieldValidation::Warn).await?;
        let cx = &call.cx;
        let answered = reviews::answer(found.kind, decoded.tree, &cx.identity, &cx.cluster, cx.now)?;
        Ok(answer::value(StatusCode::CREATED, &answered, encoding(&call)?))
    }

    /// The body as a tree of the target's type.
    async fn decoded(
        &self,
        call: &Call,
        body: Body,
        target: Target<'static>,
        validation: FieldValidation,
    ) -> Result<Decoded, Status> {
        let received: Received = self.budget.read(&call.parts, body).await?;
        if received.bytes.len() < HEAVY_BODY {
            return decode::body(content_type(&call.parts), &received.bytes, &target, validation);
        }
        let content_type = content_type(&call.parts).map(String::from);
        let work = move || decode::body(content_type.as_deref(), &received.bytes, &target, validation);
        self.heavy.run(call.cx.cluster.id(), work).await?
    }
}

/// A WebSocket begins with GET; what it does is to run something, or to reach into a pod.
fn allow_connecting(call: &Call) -> Result<(), Status> {
    let asked = Attributes { verb: "create".into(), ..call.asked.clone() };
    allow(&call.cx.identity, &asked, &call.cx.cluster)
}

/// The namespace of a collection; none for all of them.
fn namespace(call: &Call) -> Option<&str> {
    Some(call.asked.namespace.as_str()).filter(|n| !n.is_empty())
}

fn content_type(parts: &Parts) -> Option<&str> {
    parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok())
}

/// How the client wants objects of this kind.
fn view(call: &Call, resource: &'static Resource) -> Result<(View, Form), Status> {
    let include = negotiate::include(call.query.text("includeObject"))?;
    let (encoding, transform) = negotiate::objects(&accept_of(&call.parts), include)?;
    let form = with_encoding(call, encoding);
    Ok((View { resource, transform, now: call.cx.now }, form))
}

fn with_encoding(call: &Call, encoding: Encoding) -> Form {
    match encoding {
        // `?pretty` asks for it as well.
        Encoding::Json => call.form,
        encoding => Form { encoding, ..call.form },
    }
}

fn encoding(call: &Call) -> Result<Encoding, Status> {
    let (encoding, _) = negotiate::objects(&accept_of(&call.parts), Default::default())?;
    Ok(with_encoding(call, encoding).encoding)
}

fn answered(view: &View, form: Form, written: &Written, warnings: &[String]) -> Response<Body> {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer::bytes(code, view.object(&written.object), form.encoding);
    answer::warn(&mut response, warnings);
    answer::warn(&mut response, &written.warnings);
    response
}

fn scale_answer(resource: &Resource, written: &Written, form: Form) -> Result<Response<Body>, Status> {
    Ok(answer::value(StatusCode::OK, &scale::read(resource, &written.object.tree())?, form.encoding))
}

/// What a create without an object of its own answers.
fn done(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}
