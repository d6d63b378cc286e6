//! Which form an answer takes: media type and transformation, from `Accept`, in the client's order.
//!
//! kubectl sends `application/json;as=Table;v=v1;g=meta.k8s.io,application/json`, client-go puts protobuf first and JSON
//! second. Answers are JSON wherever the client offers it, YAML where it asks for that; protobuf is never answered.

use longshore_api::Status;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Json,
    /// `application/json;pretty=1` or `?pretty=true`: for people with curl.
    PrettyJson,
    Yaml,
}

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::PrettyJson => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What objects are turned into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transform {
    #[default]
    None,
    Table(Include),
    PartialMetadata,
}

/// What a table's row says of its object (`?includeObject=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

/// What a discovery request wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiscoveryForm {
    #[default]
    Plain,
    Aggregated,
}

pub const ACCEPTED: &[&str] = &["application/json", "application/yaml"];

/// One alternative of an `Accept` header.
struct Clause<'a> {
    media_type: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|t| !t.is_empty())?;
        let mut clause = Self { media_type, quality: 1.0, parameters: Vec::new() };
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim() {
                "q" => clause.quality = value.parse().unwrap_or(1.0),
                key => clause.parameters.push((key, value)),
            }
        }
        Some(clause)
    }

    fn parameter(&self, key: &str) -> &'a str {
        self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type {
            "application/json" | "*/*" | "application/*" if self.parameter("pretty") == "1" => {
                Some(Encoding::PrettyJson)
            }
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }
}

/// The clauses by quality, the client's order where it is equal.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut all: Vec<_> = accept.split(',').filter_map(|c| Clause::parse(c.trim())).collect();
    all.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    all
}

/// For objects: the first clause whose media type and transformation are both known.
pub fn objects(accept: &str, include: Include) -> Result<(Encoding, Transform), Status> {
    if accept.trim().is_empty() {
        return Ok((Encoding::Json, Transform::None));
    }
    clauses(accept)
        .iter()
        .find_map(|clause| {
            let encoding = clause.encoding()?;
            let transform = match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
                ("", _, _) => Transform::None,
                ("Table", "meta.k8s.io", "v1") => Transform::Table(include),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                    Transform::PartialMetadata
                }
                _ => return None,
            };
            Some((encoding, transform))
        })
        .ok_or_else(|| Status::not_acceptable(ACCEPTED))
}

/// For what is neither object nor list: the media type alone.
pub fn plain(accept: &str) -> Result<Encoding, Status> {
    if accept.trim().is_empty() {
        return Ok(Encoding::Json);
    }
    clauses(accept)
        .iter()
        .filter(|c| c.parameter("as").is_empty())
        .find_map(Clause::encoding)
        .ok_or_else(|| Status::not_acceptable(ACCEPTED))
}

/// For `/api` and `/apis`: aggregated discovery where it is asked for.
pub fn discovery(accept: &str) -> Result<(Encoding, DiscoveryForm), Status> {
    if accept.trim().is_empty() {
        return Ok((Encoding::Json, DiscoveryForm::Plain));
    }
    clauses(accept)
        .iter()
        .find_map(|clause| {
            let encoding = clause.encoding()?;
            match (clause.parameter("g"), clause.parameter("v"), clause.parameter("as")) {
                ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => Some((encoding, DiscoveryForm::Aggregated)),
                (_, _, "") => Some((encoding, DiscoveryForm::Plain)),
                _ => None,
            }
        })
        .ok_or_else(|| Status::not_acceptable(ACCEPTED))
}

/// What `?includeObject=` says.
pub fn include(text: &str) -> Result<Include, Status> {
    match text {
        "" | "Metadata" => Ok(Include::Metadata),
        "None" => Ok(Include::None),
        "Object" => Ok(Include::Object),
        other => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// Whether the client takes gzip (`Accept-Encoding`).
pub fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding
        .split(',')
        .filter_map(|c| Clause::parse(c.trim()))
        .any(|c| c.media_type == "gzip" && c.quality > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

    #[test]
    fn takes_the_first_clause_it_can_serve() {
        let of = |accept| objects(accept, Include::Metadata).unwrap();
        assert_eq!(of(TABLE), (Encoding::Json, Transform::Table(Include::Metadata)));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), (Encoding::Json, Transform::None));
        assert_eq!(
            of(
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            ),
            (Encoding::Json, Transform::PartialMetadata)
        );
        assert_eq!(of("application/json;q=0.1, application/yaml"), (Encoding::Yaml, Transform::None));
        assert_eq!(of("*/*"), (Encoding::Json, Transform::None));
        assert_eq!(of(""), (Encoding::Json, Transform::None));
        assert_eq!(of("application/json;as=Table;v=v9;g=meta.k8s.io, */*").1, Transform::None);
        let refused = objects("text/html", Include::Metadata).unwrap_err();
        assert_eq!(refused.code, 406);
    }

    #[test]
    fn discovery_is_aggregated_only_in_the_version_that_is_known() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(kubectl).unwrap().1, DiscoveryForm::Aggregated);
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(old).unwrap().1, DiscoveryForm::Plain);
    }

    #[test]
    fn gzip_is_a_choice() {
        assert!(takes_gzip("deflate, gzip;q=0.5"));
        assert!(!takes_gzip("gzip;q=0, br"));
        assert!(!takes_gzip(""));
    }

    proptest! {
        #[test]
        fn never_panics(accept in ".{0,80}") {
            let _ = objects(&accept, Include::None);
            let _ = discovery(&accept);
        }
    }
}
