//! Get and list: what `resourceVersion`, `resourceVersionMatch`, `limit` and `continue` mean, as Kubernetes has it.
//!
//! Reads are answered from the committed state, which is linearizable; `resourceVersion=0` takes any state, also past this
//! replica's lease. A revision that lies ahead is waited for a little: the client saw it at another replica or in a clock
//! that went back, and it is about to come.

use super::api::{self, Api, Context};
use super::errors;
use super::options::{GetOptions, ListOptions, VersionMatch};
use super::render::ListMeta;
use crate::resources::Resource;
use crate::store::{Key, ListQuery, Object, Revision, StoreError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longshore_api::Status;
use longshore_api::field::{Error, Path};
use longshore_api::selector::FieldSelector;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// As Kubernetes's watch cache.
const WAIT_FOR_REVISION: Duration = Duration::from_secs(3);

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    pub meta: ListMeta,
    pub items: Vec<Arc<Object>>,
}

/// What `continue` says. Opaque to clients; whoever forges one reads nothing that a list wouldn't give.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "rv")]
    revision: i64,
    namespace: String,
    name: String,
}

impl Api {
    pub async fn get(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &GetOptions,
    ) -> Result<Arc<Object>, Status> {
        if let Some(lease) = self.node_lease(cx, resource, namespace, name)? {
            return Ok(lease);
        }
        let key = api::key(resource, namespace, name);
        let found = match version(&options.resource_version)? {
            Some(Revision(0)) => cx.cluster.get_stale(&key).map_err(errors::store)?,
            asked => {
                reached(cx, asked).await?;
                cx.cluster.get(&key).map_err(errors::store)?
            }
        };
        found.ok_or_else(|| Status::not_found(&resource.group_resource(), name))
    }

    /// `namespace` None lists all namespaces.
    pub async fn list(
        &self,
        cx: &Context,
        resource: &'static Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, Status> {
        check_list(options)?;
        check_fields(resource, &options.fields)?;
        let store_name: Arc<str> = resource.store_name().into();
        let mut query = ListQuery {
            resource: store_name.clone(),
            namespace: namespace.map(Arc::from),
            labels: options.labels.clone(),
            fields: options.fields.clone(),
            limit: (options.limit > 0).then_some(options.limit),
            ..Default::default()
        };
        if options.r#continue.is_empty() {
            let asked = version(&options.resource_version)?;
            match (asked, options.version_match) {
                (Some(revision), VersionMatch::Exact) => {
                    reached(cx, asked).await?;
                    query.at = Some(revision);
                }
                (Some(Revision(0)), _) => query.stale = true,
                _ => reached(cx, asked).await?,
            }
        } else {
            let from = read_continue(&options.r#continue)?;
            // A token without a revision goes on with whatever is there now: the inconsistent rest of an expired list.
            query.at = (from.revision > 0).then_some(Revision(from.revision));
            query.after = Some(Key { resource: store_name, namespace: from.namespace.into(), name: from.name.into() });
        }
        let listing = cx.cluster.list(&query).map_err(|error| match (error, &query.after) {
            (StoreError::Compacted { .. }, Some(after)) => expired_continue(after),
            (StoreError::Compacted { oldest }, None) => {
                let asked = query.at.map_or(0, |r| r.0);
                Status::expired(format!("too old resource version: {asked} ({})", oldest.0))
            }
            (error, _) => errors::store(error),
        })?;
        let r#continue = listing.next.as_ref().map(|key| write_continue(listing.revision, key)).unwrap_or_default();
        let remaining = listing.remaining.map(|n| n as u64).filter(|_| !r#continue.is_empty());
        let mut items = listing.items;
        if r#continue.is_empty() {
            let leases = self.node_leases(cx, resource, namespace)?.into_iter();
            let asked = leases.filter(|lease| {
                options.labels.matches(&lease.labels) && options.fields.matches(|field| lease.field(field))
            });
            for lease in asked {
                match items.binary_search_by(|item| item.key.cmp(&lease.key)) {
                    Ok(at) => items[at] = lease,
                    Err(at) => items.insert(at, lease),
                }
            }
        }
        Ok(Page { meta: ListMeta { revision: listing.revision, r#continue, remaining }, items })
    }
}

/// A `resourceVersion` of a request: none, or a number.
pub(super) fn version(text: &str) -> Result<Option<Revision>, Status> {
    match text {
        "" => Ok(None),
        text => match text.parse::<u64>().ok().and_then(|n| i64::try_from(n).ok()) {
            Some(number) => Ok(Some(Revision(number))),
            None => Err(Status::bad_request(format!(
                "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))),
        },
    }
}

/// Waits a little for a revision that hasn't happened yet.
pub(super) async fn reached(cx: &Context, asked: Option<Revision>) -> Result<(), Status> {
    let Some(asked) = asked.filter(|asked| *asked > cx.cluster.revision()) else { return Ok(()) };
    match cx.cluster.reached(asked, WAIT_FOR_REVISION).await {
        true => Ok(()),
        false => Err(errors::future(asked.0, cx.cluster.revision().0)),
    }
}

/// Only fields that the kind declares can be selected by.
pub(super) fn check_fields(resource: &'static Resource, fields: &FieldSelector) -> Result<(), Status> {
    if fields.0.is_empty() {
        return Ok(());
    }
    let own = (api::stored(resource).fields)(&serde_json::Value::Null);
    for requirement in &fields.0 {
        let field = requirement.field.as_str();
        let known = field == "metadata.name"
            || (field == "metadata.namespace" && resource.namespaced)
            || own.contains_key(field);
        if !known && own.is_empty() {
            return Err(Status::bad_request(format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            )));
        }
        if !known {
            return Err(Status::bad_request(format!("field label not supported: {field}")));
        }
    }
    Ok(())
}

fn check_list(options: &ListOptions) -> Result<(), Status> {
    let at = Path::new("resourceVersionMatch");
    let forbidden = |why: &str| Err(list_invalid(&[Error::forbidden(&at, why)]));
    if options.version_match == VersionMatch::Unset {
        return Ok(());
    }
    if !options.r#continue.is_empty() {
        return forbidden("resourceVersionMatch is forbidden when continue is provided");
    }
    match (options.resource_version.as_str(), options.version_match) {
        ("", _) => forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ("0", VersionMatch::Exact) => {
            forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        _ => Ok(()),
    }
}

pub(super) fn list_invalid(errors: &[Error]) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", errors)
}

fn write_continue(revision: Revision, key: &Key) -> String {
    let token = Continue { revision: revision.0, namespace: key.namespace.to_string(), name: key.name.to_string() };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn read_continue(text: &str) -> Result<Continue, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| Status::bad_request(format!("continue key is not valid: {text:?}")))
}

/// Kubernetes's long sentence, with a token that goes on from the same place in the state of now.
fn expired_continue(after: &Key) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.insert("continue".into(), write_continue(Revision(0), after).into());
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::registry;

    #[test]
    fn continue_tokens_round_trip_and_garbage_is_refused() {
        let key = Key { resource: "pods".into(), namespace: "n".into(), name: "p".into() };
        let read = read_continue(&write_continue(Revision(7), &key)).unwrap();
        assert_eq!((read.revision, read.namespace.as_str(), read.name.as_str()), (7, "n", "p"));
        for garbage in ["x", "", "e30", "%%%"] {
            assert_eq!(read_continue(garbage).unwrap_err().code, 400, "{garbage}");
        }
    }

    proptest::proptest! {
        #[test]
        fn continue_tokens_say_what_they_were_given(revision in 0..i64::MAX, namespace in "\\PC{0,20}", name in "\\PC{0,20}") {
            let key = Key { resource: "pods".into(), namespace: namespace.as_str().into(), name: name.as_str().into() };
            let read = read_continue(&write_continue(Revision(revision), &key)).unwrap();
            proptest::prop_assert_eq!((read.revision, read.namespace, read.name), (revision, namespace, name));
        }

        #[test]
        fn forged_tokens_never_panic(text in "\\PC{0,60}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = read_continue(&text);
            let _ = read_continue(&URL_SAFE_NO_PAD.encode(&bytes));
            let token = format!(r#"{{"rv":{},"namespace":"","name":{text:?}}}"#, bytes.len());
            let _ = read_continue(&URL_SAFE_NO_PAD.encode(token));
        }
    }

    #[test]
    fn only_known_fields_select() {
        let maps = registry().by_path("", "v1", "configmaps").unwrap();
        let check = |text: &str| check_fields(maps, &FieldSelector::parse(text).unwrap());
        assert!(check("metadata.name=a,metadata.namespace!=b").is_ok());
        let message = check("data.x=1").unwrap_err().message;
        assert!(message.starts_with("\"data.x\" is not a known field selector"), "{message}");
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("").unwrap(), None);
        assert_eq!(version("12").unwrap(), Some(Revision(12)));
        for bad in ["-1", "x", "99999999999999999999"] {
            assert_eq!(version(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
