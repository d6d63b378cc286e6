//! Questions to the API about the asker: `auth whoami`, `auth can-i`. Created, answered, never stored.

use super::authorize::{self, Attributes, Decision, NodeScope, Rule};
use super::metadata;
use crate::accounts::{Identity, Who};
use jiff::Timestamp;
use longshore_api::Status;
use longshore_api::field::{Error, Path};
use serde_json::{Value, json};

/// The answer to the review `body` of this kind.
pub fn answer(
    kind: &str,
    body: Value,
    identity: &Identity,
    scope: &dyn NodeScope,
    now: Timestamp,
) -> Result<Value, Status> {
    match kind {
        "SelfSubjectReview" => Ok(whoami(body, identity, now)),
        "SelfSubjectAccessReview" => can_i(body, identity, scope),
        "SelfSubjectRulesReview" => rules(body, identity),
        _ => Err(Status::no_such_path()),
    }
}

fn whoami(mut body: Value, identity: &Identity, now: Timestamp) -> Value {
    let mut user = json!({"username": identity.username, "groups": identity.groups});
    if !identity.uid.is_empty() {
        user["uid"] = identity.uid.as_str().into();
    }
    if !identity.extra.is_empty() {
        user["extra"] = json!(identity.extra);
    }
    metadata::of(&mut body).insert("creationTimestamp".into(), metadata::time(now).into());
    body["status"] = json!({"userInfo": user});
    body
}

fn can_i(mut body: Value, identity: &Identity, scope: &dyn NodeScope) -> Result<Value, Status> {
    let spec = &body["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        let at = Path::new("spec").child("resourceAttributes");
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let problem = Error::invalid(&at, resource.clone(), why);
        return Err(Status::invalid("authorization.k8s.io", "SelfSubjectAccessReview", "", &[problem]));
    }
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_string();
    let asked = match resource.is_object() {
        true => Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            version: text(resource, "version"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            is_resource: true,
            ..Default::default()
        },
        false => Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Default::default() },
    };
    let mut status = match authorize::authorize(identity, &asked, scope) {
        Decision::Allow => json!({"allowed": true}),
        Decision::Deny(why) if why.is_empty() => json!({"allowed": false}),
        Decision::Deny(why) => json!({"allowed": false, "reason": why}),
    };
    if let (Who::Person { role, .. }, true) = (&identity.who, status["allowed"] == true) {
        status["reason"] = format!("role {:?} in the organization", role.as_str()).into();
    }
    metadata::of(&mut body);
    body["status"] = status;
    Ok(body)
}

fn rules(mut body: Value, identity: &Identity) -> Result<Value, Status> {
    if body["spec"]["namespace"].as_str().unwrap_or_default().is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    const ASK: Rule = Rule {
        groups: &["authentication.k8s.io", "authorization.k8s.io"],
        resources: &["selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"],
        verbs: &["create"],
    };
    let mut resources = vec![shown(&ASK)];
    let mut paths = vec![json!({"verbs": ["get"], "nonResourceURLs": authorize::open_paths()})];
    let mut status = json!({"incomplete": false});
    match &identity.who {
        Who::Person { role, .. } => resources.extend(authorize::rules(*role).into_iter().map(shown)),
        Who::System => resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
        Who::Node { .. } => {
            status["incomplete"] = true.into();
            status["evaluationError"] = "node authorizer does not support user rule resolution".into();
        }
        Who::ServiceAccount { .. } | Who::Anonymous => {}
    }
    if identity.groups.iter().any(|g| g == "system:masters") {
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    status["resourceRules"] = resources.into();
    status["nonResourceRules"] = paths.into();
    metadata::of(&mut body);
    body["status"] = status;
    Ok(body)
}

fn shown(rule: &Rule) -> Value {
    json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources})
}
