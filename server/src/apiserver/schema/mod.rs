//! The type graph: every message of Kubernetes's API, its fields, and how lists and maps merge.
//!
//! One table (`types.txt`, embedded and parsed once) instead of code for each type: decoding of all three encodings,
//! pruning, field validation, strategic merge and, later, server-side apply walk the same graph, so that they can't
//! disagree about a field. Rejected: `k8s_openapi`'s structs as the decoded form. They would drop what is unknown
//! silently, know neither merge keys nor protobuf tags, and cost a copy of every object.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The whole graph.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse(include_str!("types.txt")));
    &SCHEMA
}

#[derive(Debug)]
pub struct Schema {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, MessageId>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), MessageId>,
}

/// A message's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(u16);

#[derive(Debug)]
pub struct Message {
    /// Without the leading `io.k8s.`: `api.apps.v1.Deployment`.
    name: &'static str,
    /// Has `kind` and `apiVersion`, which stand in no table of fields.
    pub root: bool,
    /// Server-side apply owns it as one value.
    pub atomic: bool,
    pub shape: Shape,
    /// As declared: what protobuf has. Inlined messages are fields of their own here.
    pub fields: Vec<Field>,
    /// As JSON has them: inlined messages' fields stand among the others.
    members: Vec<Field>,
    by_json: HashMap<&'static str, usize>,
    by_tag: HashMap<u32, usize>,
}

/// How a message looks in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Struct,
    Time,
    MicroTime,
    /// Go's duration text.
    Duration,
    Quantity,
    IntOrString,
    /// Any JSON: `RawExtension`, `FieldsV1` and apiextensions' `JSON`.
    Raw,
    /// A message with only `items` that is a plain list in JSON (`Verbs`, `ExtraValue`).
    Items,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrStrings,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub tag: u32,
    pub json: &'static str,
    pub label: Label,
    pub kind: Kind,
    /// JSON leaves out the zero value.
    pub omit_zero: bool,
    /// Its fields stand in the parent.
    pub inline: bool,
    pub merge: Merge,
    pub patch: Patch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    One,
    List,
    Map,
}

/// The type of a field, of a list's items, or of a map's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    Bytes,
    Message(MessageId),
}

/// How server-side apply tells the items of a list apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// Nothing is declared: lists are atomic, maps and messages granular.
    #[default]
    Undeclared,
    Atomic,
    Set,
    Keys(Vec<&'static str>),
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Lists are merged item by item, not replaced.
    pub merge: bool,
    /// Maps are replaced (the rule for lists without `merge`).
    pub replace: bool,
    /// Unions: only the fields named by the patch's `$retainKeys` stay.
    pub retain_keys: bool,
    /// What tells objects of the list apart; empty for lists of primitives.
    pub key: &'static str,
}

impl Schema {
    /// The table is part of the program: a line that can't be read is a bug that the first test meets.
    fn parse(text: &'static str) -> Self {
        let lines = || text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
        let by_name: HashMap<&'static str, MessageId> = lines()
            .filter(|l| !l.starts_with(' '))
            .enumerate()
            .map(|(i, line)| (line.split(' ').next().unwrap_or_default(), MessageId(i as u16)))
            .collect();
        let mut messages: Vec<Message> = Vec::with_capacity(by_name.len());
        for line in lines() {
            match line.strip_prefix(' ') {
                None => messages.push(Message::parse(line)),
                Some(field) => {
                    let field = Field::parse(field, &by_name);
                    messages.last_mut().expect("a field stands below its message").fields.push(field);
                }
            }
        }
        let members: Vec<Vec<Field>> = messages.iter().map(|m| flattened(m, &messages)).collect();
        let mut by_kind = HashMap::new();
        for (i, (message, members)) in messages.iter_mut().zip(members).enumerate() {
            message.by_json = members.iter().enumerate().map(|(i, f)| (f.json, i)).collect();
            message.by_tag = message.fields.iter().enumerate().map(|(i, f)| (f.tag, i)).collect();
            message.members = members;
            if let (true, Some((group, version, kind))) = (message.root, message.group_version_kind()) {
                by_kind.insert((group, version, kind), MessageId(i as u16));
            }
        }
        Self { messages, by_name, by_kind }
    }

    /// By name, with or without the leading `io.k8s.`.
    pub fn find(&self, name: &str) -> Option<&Message> {
        self.by_name.get(name.strip_prefix("io.k8s.").unwrap_or(name)).map(|id| self.message(*id))
    }

    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    /// The message of a kind that Kubernetes knows, served here or not. What every group has (`DeleteOptions`) is
    /// found under `meta.k8s.io`.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Message> {
        self.by_kind.get(&(group, version, kind)).map(|id| self.message(*id))
    }

    /// Whether any kind of this group version is known.
    pub fn knows_version(&self, group: &str, version: &str) -> bool {
        self.by_kind.keys().any(|(g, v, _)| *g == group && *v == version)
    }
}

/// A message's fields with those of inlined messages in their place.
fn flattened(message: &Message, all: &[Message]) -> Vec<Field> {
    let mut members = Vec::with_capacity(message.fields.len());
    for field in &message.fields {
        match (field.inline, field.kind) {
            (true, Kind::Message(id)) => members.extend(flattened(&all[id.0 as usize], all)),
            _ => members.push(field.clone()),
        }
    }
    members
}

impl Message {
    fn parse(line: &'static str) -> Self {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let flags: Vec<_> = words.collect();
        Self {
            name,
            root: flags.contains(&"root"),
            atomic: flags.contains(&"atomic"),
            shape: Shape::of(name),
            fields: Vec::new(),
            members: Vec::new(),
            by_json: HashMap::new(),
            by_tag: HashMap::new(),
        }
    }

    /// `io.k8s.api.apps.v1.Deployment`, as OpenAPI names it.
    pub fn full_name(&self) -> String {
        format!("io.k8s.{}", self.name)
    }

    /// `v1.Deployment`: how Go's error messages name the type.
    pub fn go_type(&self) -> &'static str {
        let kind = self.name.rfind('.').unwrap_or(0);
        let package = self.name[..kind].rfind('.').map_or(0, |dot| dot + 1);
        &self.name[package..]
    }

    /// `Deployment`
    pub fn go_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// The package of the internal type in Kubernetes's server, which some of its messages show: `apps`.
    pub fn internal_package(&self) -> &'static str {
        match self.name.split('.').rev().nth(2).unwrap_or_default() {
            // Both groups of Event share one internal type.
            "events" => "core",
            package => package,
        }
    }

    /// What its package and name say; only roots are kinds.
    pub fn group_version_kind(&self) -> Option<(&'static str, &'static str, &'static str)> {
        let mut parts = self.name.rsplit('.');
        let (kind, version, package) = (parts.next()?, parts.next()?, parts.next()?);
        let group = match package {
            "core" => "",
            "meta" => "meta.k8s.io",
            "admissionregistration" => "admissionregistration.k8s.io",
            "apiextensions" => "apiextensions.k8s.io",
            "apiserverinternal" => "internal.apiserver.k8s.io",
            "authentication" => "authentication.k8s.io",
            "authorization" => "authorization.k8s.io",
            "certificates" => "certificates.k8s.io",
            "coordination" => "coordination.k8s.io",
            "discovery" => "discovery.k8s.io",
            "events" => "events.k8s.io",
            "flowcontrol" => "flowcontrol.apiserver.k8s.io",
            "imagepolicy" => "imagepolicy.k8s.io",
            "metrics" => "metrics.k8s.io",
            "networking" => "networking.k8s.io",
            "node" => "node.k8s.io",
            "rbac" => "rbac.authorization.k8s.io",
            "resource" => "resource.k8s.io",
            "scheduling" => "scheduling.k8s.io",
            "storage" => "storage.k8s.io",
            "storagemigration" => "storagemigration.k8s.io",
            other => other,
        };
        Some((group, version, kind))
    }

    /// The field that JSON calls so. Case counts.
    pub fn member(&self, json: &str) -> Option<&Field> {
        self.by_json.get(json).map(|i| &self.members[*i])
    }

    pub fn members(&self) -> &[Field] {
        &self.members
    }

    pub fn tagged(&self, tag: u32) -> Option<&Field> {
        self.by_tag.get(&tag).map(|i| &self.fields[*i])
    }
}

impl Shape {
    fn of(name: &str) -> Self {
        match name.strip_prefix("apimachinery.pkg.").unwrap_or(name) {
            "apis.meta.v1.Time" | "apis.meta.v1.Timestamp" => Self::Time,
            "apis.meta.v1.MicroTime" => Self::MicroTime,
            "apis.meta.v1.Duration" => Self::Duration,
            "apis.meta.v1.FieldsV1" | "runtime.RawExtension" => Self::Raw,
            "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON" => Self::Raw,
            "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => Self::SchemaOrArray,
            "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => Self::SchemaOrBool,
            "apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => Self::SchemaOrStrings,
            "api.resource.Quantity" | "api.resource.QuantityValue" => Self::Quantity,
            "util.intstr.IntOrString" => Self::IntOrString,
            "apis.meta.v1.Verbs" => Self::Items,
            other if other.ends_with(".ExtraValue") => Self::Items,
            _ => Self::Struct,
        }
    }
}

impl Field {
    fn parse(line: &'static str, messages: &HashMap<&'static str, MessageId>) -> Self {
        let words: Vec<&'static str> = line.split(' ').collect();
        let [tag, json, r#type, flags @ ..] = &words[..] else {
            unreachable!("a field has tag, name and type: {line}")
        };
        let (label, name) = match (r#type.strip_prefix("[]"), r#type.strip_prefix("map:")) {
            (Some(item), _) => (Label::List, item),
            (_, Some(value)) => (Label::Map, value),
            _ => (Label::One, *r#type),
        };
        let kind = match name {
            "string" => Kind::String,
            "bool" => Kind::Bool,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            message => Kind::Message(messages[message]),
        };
        let mut field = Self {
            tag: tag.parse().expect("a tag is a number"),
            json,
            label,
            kind,
            omit_zero: false,
            inline: *json == "(inline)",
            merge: Merge::Undeclared,
            patch: Patch::default(),
        };
        for flag in flags {
            match flag.split_once('=') {
                None if *flag == "zero" => field.omit_zero = true,
                None if *flag == "atomic" => field.merge = Merge::Atomic,
                None if *flag == "set" => field.merge = Merge::Set,
                Some(("keys", keys)) => field.merge = Merge::Keys(keys.split(',').collect()),
                Some(("patch", patch)) => field.patch = Patch::parse(patch),
                _ => {}
            }
        }
        field
    }

    /// How Go's error messages name the type.
    pub fn go_type(&self, schema: &Schema) -> String {
        let item = self.kind.go_type(schema);
        match self.label {
            Label::One => item.to_string(),
            Label::List => format!("[]{item}"),
            Label::Map => format!("map[string]{item}"),
        }
    }
}

impl Kind {
    pub fn go_type(self, schema: &Schema) -> &'static str {
        match self {
            Self::String => "string",
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Double => "float64",
            Self::Bytes => "[]uint8",
            Self::Message(id) => schema.messages[id.0 as usize].go_type(),
        }
    }
}

impl Patch {
    fn parse(text: &'static str) -> Self {
        let (strategies, key) = text.split_once(':').unwrap_or((text, ""));
        let has = |strategy| strategies.split(',').any(|s| s == strategy);
        Self { merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys"), key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let schema = schema();
        assert!(schema.messages.len() > 700);
        for message in &schema.messages {
            assert_eq!(message.members.len(), message.by_json.len(), "{} has a JSON name twice", message.name);
            assert_eq!(message.fields.len(), message.by_tag.len(), "{} has a tag twice", message.name);
        }
    }

    #[test]
    fn finds_types_fields_and_their_rules() {
        let schema = schema();
        let deployment = schema.find_kind("apps", "v1", "Deployment").unwrap();
        assert_eq!(deployment.full_name(), "io.k8s.api.apps.v1.Deployment");
        assert_eq!((deployment.go_type(), deployment.internal_package()), ("v1.Deployment", "apps"));
        let spec = schema.find("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = spec.member("containers").unwrap();
        assert_eq!(containers.patch, Patch { merge: true, key: "name", ..Patch::default() });
        assert_eq!(containers.merge, Merge::Keys(vec!["name"]));
        assert_eq!(containers.go_type(schema), "[]v1.Container");
        let volume = schema.find("io.k8s.api.core.v1.Volume").unwrap();
        assert!(volume.member("emptyDir").is_some() && volume.member("(inline)").is_none());
        assert!(volume.tagged(2).unwrap().inline);
        assert!(schema.knows_version("apps", "v1") && !schema.knows_version("apps", "v9"));
        assert!(schema.find_kind("meta.k8s.io", "v1", "DeleteOptions").is_some());
    }
}
