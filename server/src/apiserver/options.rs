//! What a verb is asked for beside its object: `metav1.ListOptions` and its kin, parsed and checked once.

use longshore_api::selector::{FieldSelector, LabelSelector};

/// How strictly unknown and duplicate fields of a body are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// What a server does for clients that say nothing.
    #[default]
    Warn,
    Strict,
}

/// How a `resourceVersion` in a read is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionMatch {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// "" or "0" or a revision: not older than.
    pub resource_version: String,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// 0: no limit.
    pub limit: usize,
    pub r#continue: String,
    pub resource_version: String,
    pub version_match: VersionMatch,
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub resource_version: String,
    pub version_match: VersionMatch,
    pub bookmarks: bool,
    /// None: what `resourceVersion` implies. Some(true): the state first, then a bookmark that says so.
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    pub dry_run: bool,
    pub field_manager: String,
}

#[derive(Clone, Debug, Default)]
pub struct UpdateOptions {
    pub dry_run: bool,
    pub field_manager: String,
}

#[derive(Clone, Debug, Default)]
pub struct PatchOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Takes over what others have set: for apply only.
    pub force: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// Reading options from a request's query and, for deletes, its body. Errors are Kubernetes's own.
mod parse {
    use super::*;
    use crate::apiserver::request::Query;
    use longshore_api::Status;
    use longshore_api::field::{Error, Path};
    use serde_json::Value;

    /// Longer names of field managers are refused.
    const FIELD_MANAGER_LIMIT: usize = 128;

    fn number(query: &Query, key: &str) -> Result<Option<i64>, Status> {
        match query.text(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }

    fn invalid(kind: &str, error: Error) -> Status {
        Status::invalid("meta.k8s.io", kind, "", &[error])
    }

    fn selectors(query: &Query) -> Result<(LabelSelector, FieldSelector), Status> {
        let labels = LabelSelector::parse(query.text("labelSelector")).map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(query.text("fieldSelector")).map_err(Status::bad_request)?;
        Ok((labels, fields))
    }

    fn version_match(query: &Query) -> Result<VersionMatch, Status> {
        match query.text("resourceVersionMatch") {
            "" => Ok(VersionMatch::Unset),
            "Exact" => Ok(VersionMatch::Exact),
            "NotOlderThan" => Ok(VersionMatch::NotOlderThan),
            other => {
                let at = Path::new("resourceVersionMatch");
                Err(invalid("ListOptions", Error::not_supported(&at, other, &["Exact", "NotOlderThan", ""])))
            }
        }
    }

    fn dry_run(query: &Query, kind: &str) -> Result<bool, Status> {
        let mut values = query.all("dryRun").filter(|v| !v.is_empty()).peekable();
        let dry = values.peek().is_some();
        match values.find(|v| *v != "All") {
            None => Ok(dry),
            Some(other) => Err(invalid(kind, Error::not_supported(&Path::new("dryRun"), other, &["All"]))),
        }
    }

    /// Who the managed fields belong to: as the client says, or the start of its user agent.
    fn field_manager(query: &Query, kind: &str) -> Result<String, Status> {
        let name = query.text("fieldManager");
        if name.len() > FIELD_MANAGER_LIMIT {
            return Err(invalid(kind, Error::too_long(&Path::new("fieldManager"), FIELD_MANAGER_LIMIT)));
        }
        Ok(name.into())
    }

    impl FieldValidation {
        pub fn from_query(query: &Query, kind: &str) -> Result<Self, Status> {
            match query.text("fieldValidation") {
                "" | "Warn" => Ok(Self::Warn),
                "Ignore" => Ok(Self::Ignore),
                "Strict" => Ok(Self::Strict),
                other => {
                    let at = Path::new("fieldValidation");
                    Err(invalid(kind, Error::not_supported(&at, other, &["Ignore", "Strict", "Warn"])))
                }
            }
        }
    }

    impl ListOptions {
        pub fn from_query(query: &Query) -> Result<Self, Status> {
            let (labels, fields) = selectors(query)?;
            let limit = number(query, "limit")?.unwrap_or(0);
            Ok(Self {
                labels,
                fields,
                limit: usize::try_from(limit).unwrap_or(0),
                r#continue: query.text("continue").into(),
                resource_version: query.text("resourceVersion").into(),
                version_match: version_match(query)?,
            })
        }
    }

    impl WatchOptions {
        pub fn from_query(query: &Query) -> Result<Self, Status> {
            let (labels, fields) = selectors(query)?;
            Ok(Self {
                labels,
                fields,
                resource_version: query.text("resourceVersion").into(),
                version_match: version_match(query)?,
                bookmarks: query.flag("allowWatchBookmarks"),
                send_initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
                timeout_seconds: number(query, "timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()),
            })
        }
    }

    impl CreateOptions {
        pub fn from_query(query: &Query) -> Result<Self, Status> {
            const KIND: &str = "CreateOptions";
            Ok(Self { dry_run: dry_run(query, KIND)?, field_manager: field_manager(query, KIND)? })
        }
    }

    impl UpdateOptions {
        pub fn from_query(query: &Query) -> Result<Self, Status> {
            const KIND: &str = "UpdateOptions";
            Ok(Self { dry_run: dry_run(query, KIND)?, field_manager: field_manager(query, KIND)? })
        }
    }

    impl PatchOptions {
        pub fn from_query(query: &Query) -> Result<Self, Status> {
            const KIND: &str = "PatchOptions";
            Ok(Self {
                dry_run: dry_run(query, KIND)?,
                field_manager: field_manager(query, KIND)?,
                field_validation: FieldValidation::from_query(query, KIND)?,
                force: query.has("force").then(|| query.flag("force")),
            })
        }
    }

    fn propagation(word: &str, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
        let at = Path::new("propagationPolicy");
        match (word, orphan) {
            (_, Some(_)) if !word.is_empty() => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                Err(invalid("DeleteOptions", Error::invalid(&at, word, why)))
            }
            ("", Some(true)) | ("Orphan", _) => Ok(Some(Propagation::Orphan)),
            ("", Some(false)) | ("Background", _) => Ok(Some(Propagation::Background)),
            ("Foreground", _) => Ok(Some(Propagation::Foreground)),
            ("", None) => Ok(None),
            (other, _) => {
                let known = ["Background", "Foreground", "Orphan"];
                Err(invalid("DeleteOptions", Error::not_supported(&at, other, &known)))
            }
        }
    }

    impl DeleteOptions {
        pub fn from_query(query: &Query) -> Result<Self, Status> {
            let orphan = query.has("orphanDependents").then(|| query.flag("orphanDependents"));
            Ok(Self {
                dry_run: dry_run(query, "DeleteOptions")?,
                grace_period_seconds: number(query, "gracePeriodSeconds")?,
                propagation: propagation(query.text("propagationPolicy"), orphan)?,
                uid: None,
                resource_version: None,
            })
        }

        /// A body, where there is one, says it all; the query then counts for nothing.
        pub fn from_body(tree: &Value) -> Result<Self, Status> {
            let text = |value: &Value| value.as_str().map(String::from);
            let dry = tree["dryRun"].as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(other) = dry.iter().find(|v| **v != "All") {
                let at = Path::new("dryRun");
                let other = other.as_str().unwrap_or_default();
                return Err(invalid("DeleteOptions", Error::not_supported(&at, other, &["All"])));
            }
            Ok(Self {
                dry_run: !dry.is_empty(),
                grace_period_seconds: tree["gracePeriodSeconds"].as_i64(),
                propagation: propagation(
                    tree["propagationPolicy"].as_str().unwrap_or_default(),
                    tree["orphanDependents"].as_bool(),
                )?,
                uid: text(&tree["preconditions"]["uid"]),
                resource_version: text(&tree["preconditions"]["resourceVersion"]),
            })
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use serde_json::json;

        #[test]
        fn options_are_checked_in_kubernetes_words() {
            let query = |text| Query::parse(text);
            assert!(CreateOptions::from_query(&query("dryRun=All")).unwrap().dry_run);
            let refused = CreateOptions::from_query(&query("dryRun=Some")).unwrap_err();
            assert_eq!(
                refused.message,
                "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": supported values: \"All\""
            );
            assert!(ListOptions::from_query(&query("limit=x")).is_err());
            assert!(ListOptions::from_query(&query("labelSelector=a%3D%3D%3D")).is_err());
            let watch =
                WatchOptions::from_query(&query("sendInitialEvents=true&allowWatchBookmarks=1&timeoutSeconds=7"));
            let watch = watch.unwrap();
            assert_eq!(
                (watch.send_initial_events, watch.bookmarks, watch.timeout_seconds),
                (Some(true), true, Some(7))
            );
        }

        #[test]
        fn a_delete_says_how_by_query_or_body() {
            let by_query =
                DeleteOptions::from_query(&Query::parse("gracePeriodSeconds=5&propagationPolicy=Foreground"));
            let by_query = by_query.unwrap();
            assert_eq!((by_query.grace_period_seconds, by_query.propagation), (Some(5), Some(Propagation::Foreground)));
            let by_body = DeleteOptions::from_body(&json!({"orphanDependents": true, "preconditions": {"uid": "u"}}));
            let by_body = by_body.unwrap();
            assert_eq!((by_body.propagation, by_body.uid.as_deref()), (Some(Propagation::Orphan), Some("u")));
            let both = DeleteOptions::from_body(&json!({"orphanDependents": true, "propagationPolicy": "Orphan"}));
            assert_eq!(both.unwrap_err().code, 422);
        }
    }
}
