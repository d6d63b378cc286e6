//! Protobuf bodies: Kubernetes's envelope and, by the table, the message in it.
//!
//! Kubernetes's messages are proto2 as Go writes them: fields that Go keeps by value are always on the wire, those it
//! keeps by pointer only when set. So what is absent stays absent, and `omit_zero` decides about zero values exactly as
//! Go's JSON encoder does. Fields that the table doesn't know are skipped, as in Kubernetes, whatever validation says.

use super::bounds::Bounds;
use super::{Decoded, Head, Strict, Target, any, head, judge, scalars, typed, unrecognized};
use crate::apiserver::FieldValidation;
use crate::apiserver::schema::{Field, Kind, Label, Message, Schema, Shape, schema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use longshore_api::Status;
use serde_json::{Map, Number, Value};

const MAGIC: &[u8] = b"k8s\0";
const EOF: &str = "unexpected EOF";

pub fn body(bytes: &[u8], target: &Target<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    let envelope = Envelope::read(bytes).map_err(|why| unrecognized(target, &why, bytes))?;
    let found = Head::new(&envelope.api_version, &envelope.kind, target);
    let message = found.message(target).map_err(|why| found.refuse(target, &why))?;
    let mut reader = Reader { schema: schema(), bounds: Bounds::default() };
    let mut tree = Map::new();
    reader.message(message, envelope.raw, &mut tree).map_err(|why| found.refuse(target, &why))?;
    found.check_version(target)?;
    let mut tree = Value::Object(tree);
    head(&mut tree, target);
    judge(Strict { tree, complaints: Vec::new() }, validation, |why| found.refuse(target, why))
}

/// `runtime.Unknown`
#[derive(Default)]
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
}

impl<'b> Envelope<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("empty data".into());
        }
        const NO_MAGIC: &str = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
        let body = bytes.strip_prefix(MAGIC).ok_or(NO_MAGIC)?;
        let mut envelope = Self::default();
        for field in Fields(body) {
            match field? {
                (1, Wire::Bytes(meta)) => {
                    for field in Fields(meta) {
                        match field? {
                            (1, Wire::Bytes(text)) => envelope.api_version = lossy(text),
                            (2, Wire::Bytes(text)) => envelope.kind = lossy(text),
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Clone, Copy)]
enum Wire<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'b [u8]),
}

impl Wire<'_> {
    fn number(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        }
    }
}

/// The fields of one message, in order.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], String> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(EOF)?;
        self.0 = rest;
        Ok(head)
    }

    fn field(&mut self) -> Result<(u32, Wire<'b>), String> {
        let key = varint(&mut self.0)?;
        let tag = u32::try_from(key >> 3)
            .ok()
            .filter(|tag| *tag > 0)
            .ok_or_else(|| format!("proto: illegal tag {} (wire type {})", key >> 3, key & 7))?;
        let wire = match key & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| EOF)?)),
            2 => {
                let len = usize::try_from(varint(&mut self.0)?).map_err(|_| EOF)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            // Groups were never used by Kubernetes's messages.
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((tag, wire))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u32, Wire<'b>), String>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate() {
        if i == 10 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() < 10 { EOF.into() } else { "proto: integer overflow".into() })
}

struct Reader {
    schema: &'static Schema,
    bounds: Bounds,
}

impl Reader {
    /// Reads a message's fields into `tree`, which holds what an earlier part of the same message brought.
    fn message(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        tree: &mut Map<String, Value>,
    ) -> Result<(), String> {
        self.fields(message, bytes, tree)?;
        let added = typed::complete(tree, message, self.schema);
        self.bounds.objects(added + 1).map_err(|e| e.to_string())
    }

    fn fields(&mut self, message: &'static Message, bytes: &[u8], tree: &mut Map<String, Value>) -> Result<(), String> {
        self.bounds.enter().map_err(|e| e.to_string())?;
        for field in Fields(bytes) {
            let (tag, wire) = field?;
            let Some(field) = message.tagged(tag) else { continue };
            match (field.inline, field.kind, wire) {
                (true, Kind::Message(id), Wire::Bytes(inner)) => self.fields(self.schema.message(id), inner, tree)?,
                _ => self.field(field, wire, tree)?,
            }
        }
        self.bounds.leave();
        Ok(())
    }

    fn field(&mut self, field: &'static Field, wire: Wire<'_>, tree: &mut Map<String, Value>) -> Result<(), String> {
        match (field.label, wire) {
            (Label::One, wire) => match self.one(field, wire, tree.get_mut(field.json))? {
                Some(value) if !(field.omit_zero && typed::is_zero(&value, field)) => {
                    tree.insert(field.json.into(), value);
                }
                _ => {}
            },
            (Label::List, Wire::Bytes(mut packed)) if is_varint(field.kind) => {
                let items = list(tree, field);
                while !packed.is_empty() {
                    items.push(integer(field.kind, varint(&mut packed)?));
                }
            }
            (Label::List, wire) => {
                let item = self.one(field, wire, None)?.unwrap_or_default();
                list(tree, field).push(item);
            }
            (Label::Map, Wire::Bytes(entry)) => {
                let (key, value) = self.entry(field, entry)?;
                let entries = tree.entry(field.json).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(entries) = entries {
                    entries.insert(key, value);
                }
            }
            (Label::Map, wire) => return Err(wrong_wire(field, wire)),
        }
        Ok(())
    }

    fn entry(&mut self, field: &'static Field, bytes: &[u8]) -> Result<(String, Value), String> {
        let (mut key, mut value) = (String::new(), None);
        for part in Fields(bytes) {
            match part? {
                (1, Wire::Bytes(text)) => key = lossy(text),
                (2, wire) => value = self.one(field, wire, None)?,
                _ => {}
            }
        }
        let value = match (value, field.kind) {
            (Some(value), _) => value,
            (None, Kind::Message(_)) => self.one(field, Wire::Bytes(&[]), None)?.unwrap_or_default(),
            (None, _) => Value::String(String::new()),
        };
        Ok((key, value))
    }

    /// One value; `None` for Go's zero time, which JSON has as null.
    fn one(
        &mut self,
        field: &'static Field,
        wire: Wire<'_>,
        earlier: Option<&mut Value>,
    ) -> Result<Option<Value>, String> {
        Ok(Some(match (field.kind, wire) {
            (Kind::String, Wire::Bytes(text)) => lossy(text).into(),
            (Kind::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            (Kind::Bool | Kind::Int32 | Kind::Int64, Wire::Varint(n)) => integer(field.kind, n),
            (Kind::Double, Wire::Fixed64(bits)) => {
                Number::from_f64(f64::from_bits(bits)).map(Value::Number).unwrap_or_default()
            }
            (Kind::Message(id), Wire::Bytes(bytes)) => return self.nested(self.schema.message(id), bytes, earlier),
            (_, wire) => return Err(wrong_wire(field, wire)),
        }))
    }

    fn nested(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        earlier: Option<&mut Value>,
    ) -> Result<Option<Value>, String> {
        match message.shape {
            Shape::Struct => {
                let mut tree = match earlier.map(Value::take) {
                    Some(Value::Object(tree)) => tree,
                    _ => Map::new(),
                };
                self.message(message, bytes, &mut tree)?;
                Ok(Some(Value::Object(tree)))
            }
            Shape::Time | Shape::MicroTime if bytes.is_empty() => Ok(None),
            Shape::Time => Ok(Some(scalars::seconds(timestamp(bytes)?).into())),
            Shape::MicroTime => Ok(Some(scalars::micros(timestamp(bytes)?).into())),
            Shape::Duration => Ok(Some(scalars::duration_text(numbers(bytes)?[0] as i64).into())),
            Shape::Quantity => match text_at(bytes, 1)? {
                text if text.is_empty() => Ok(Some("0".into())),
                text => scalars::quantity(&text),
            },
            Shape::IntOrString => match numbers(bytes)? {
                [0, n, _] => Ok(Some((n as i32).into())),
                _ => Ok(Some(text_at(bytes, 3)?.into())),
            },
            Shape::Raw => self.raw(bytes),
            Shape::Items => {
                let mut tree = Map::new();
                self.fields(message, bytes, &mut tree)?;
                Ok(Some(tree.remove("items").unwrap_or_else(|| Value::Array(Vec::new()))))
            }
            Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
                let mut tree = Map::new();
                self.fields(message, bytes, &mut tree)?;
                let list = tree.remove("jSONSchemas").or_else(|| tree.remove("property"));
                Ok(list.or_else(|| tree.remove("schema")).or_else(|| tree.remove("allows")))
            }
        }
    }

    /// JSON that protobuf carries as it is.
    fn raw(&mut self, bytes: &[u8]) -> Result<Option<Value>, String> {
        let mut json: &[u8] = &[];
        for field in Fields(bytes) {
            if let (1, Wire::Bytes(raw)) = field? {
                json = raw;
            }
        }
        if json.is_empty() {
            return Ok(None);
        }
        let mut source = serde_json::Deserializer::from_slice(json);
        any::read(&mut source, &mut self.bounds)
            .and_then(|value| source.end().map(|()| Some(value)))
            .map_err(|e| e.to_string())
    }
}

fn list<'t>(tree: &'t mut Map<String, Value>, field: &Field) -> &'t mut Vec<Value> {
    let list = tree.entry(field.json).or_insert_with(|| Value::Array(Vec::new()));
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut().expect("just made one")
}

fn is_varint(kind: Kind) -> bool {
    matches!(kind, Kind::Bool | Kind::Int32 | Kind::Int64)
}

fn integer(kind: Kind, n: u64) -> Value {
    match kind {
        Kind::Bool => (n != 0).into(),
        Kind::Int32 => (n as i32).into(),
        _ => (n as i64).into(),
    }
}

fn wrong_wire(field: &Field, wire: Wire<'_>) -> String {
    format!("proto: wrong wireType = {} for field {}", wire.number(), field.json)
}

/// The varints of a small message, by tags 1 to 3.
fn numbers(bytes: &[u8]) -> Result<[u64; 3], String> {
    let mut values = [0; 3];
    for field in Fields(bytes) {
        if let (tag @ 1..=3, Wire::Varint(n)) = field? {
            values[tag as usize - 1] = n;
        }
    }
    Ok(values)
}

fn text_at(bytes: &[u8], wanted: u32) -> Result<String, String> {
    let mut text = String::new();
    for field in Fields(bytes) {
        match field? {
            (tag, Wire::Bytes(value)) if tag == wanted => text = lossy(value),
            _ => {}
        }
    }
    Ok(text)
}

fn timestamp(bytes: &[u8]) -> Result<Timestamp, String> {
    let [seconds, nanos, _] = numbers(bytes)?;
    Timestamp::new(seconds as i64, nanos as i32).map_err(|_| "time out of range".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn decode(target: Target<'_>, bytes: &[u8]) -> Result<Decoded, Status> {
        super::body(bytes, &target, FieldValidation::Strict)
    }

    /// The bodies are kubectl's own: `create deployment web --image=nginx:1 --replicas=3 --port=80` and the like.
    #[test]
    fn reads_what_kubectl_sends() {
        let deployment = include_bytes!("testdata/deployment.pb");
        let target =
            Target { group: "apps", version: "v1", kind: "Deployment", type_name: "io.k8s.api.apps.v1.Deployment" };
        assert_eq!(
            decode(target, deployment).unwrap().tree,
            json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"labels":{"app":"web"},"name":"web"},
                "spec":{"replicas":3,"selector":{"matchLabels":{"app":"web"}},"strategy":{},
                "template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[
                    {"image":"nginx:1","name":"nginx","ports":[{"containerPort":80}],"resources":{}}]}}},"status":{}})
        );
        let target = Target { group: "", version: "v1", kind: "ConfigMap", type_name: "io.k8s.api.core.v1.ConfigMap" };
        assert_eq!(
            decode(target, include_bytes!("testdata/configmap.pb")).unwrap().tree,
            json!({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm"},"data":{"a":"b"}})
        );
        let target = Target { group: "", version: "v1", kind: "Secret", type_name: "io.k8s.api.core.v1.Secret" };
        let secret = decode(target, include_bytes!("testdata/secret.pb")).unwrap().tree;
        assert_eq!(secret["data"], json!({"p":"cQ=="}));
        let target = Target { group: "", version: "v1", kind: "Service", type_name: "io.k8s.api.core.v1.Service" };
        let service = decode(target, include_bytes!("testdata/service.pb")).unwrap().tree;
        assert_eq!(service["spec"]["ports"], json!([{"name":"80-8080","port":80,"protocol":"TCP","targetPort":8080}]));
        let request = decode(Target::TOKEN_REQUEST, include_bytes!("testdata/tokenrequest.pb")).unwrap().tree;
        assert_eq!(request["spec"]["expirationSeconds"], 600);
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw)].concat()
    }

    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let (mut out, mut len) = (vec![tag << 3 | 2], bytes.len());
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(bytes);
        out
    }

    const POD: Target<'static> = Target { group: "", version: "v1", kind: "Pod", type_name: "io.k8s.api.core.v1.Pod" };

    #[test]
    fn errors_are_clear() {
        for (bytes, message) in [
            (Vec::new(), "the object provided is unrecognized (must be of type Pod): empty data (<empty>)"),
            (
                b"{}".to_vec(),
                "the object provided is unrecognized (must be of type Pod): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({})",
            ),
            (envelope("Pod", b"\x0a\xff"), "Pod in version \"v1\" cannot be handled as a Pod: unexpected EOF"),
            (
                envelope("Pod", b"\x08\x01"),
                "Pod in version \"v1\" cannot be handled as a Pod: proto: wrong wireType = 0 for field metadata",
            ),
            (
                envelope("Service", b""),
                "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion",
            ),
        ] {
            assert_eq!(decode(POD, &bytes).unwrap_err().message, message);
        }
    }

    #[test]
    fn messages_are_bounded() {
        // An empty container is two bytes, and an object of its own with `resources` in it.
        let containers = field(2, &b"\x12\x00".repeat(500_000));
        let error = decode(POD, &envelope("Pod", &containers)).unwrap_err().message;
        assert!(error.ends_with("the body holds more than 100000 objects"), "{error}");
        // A schema within a schema: `not` is field 28, two bytes of tag.
        let mut schema = Vec::new();
        for _ in 0..400 {
            let inner = field(0, &schema);
            schema = [&[0xe2, 0x01], &inner[1..]].concat();
        }
        let crd = Target {
            group: "apiextensions.k8s.io",
            version: "v1",
            kind: "CustomResourceDefinition",
            type_name: "io.k8s.apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        };
        let version = field(7, &field(4, &field(1, &schema)));
        let bytes = [
            MAGIC,
            &field(1, &[field(1, b"apiextensions.k8s.io/v1"), field(2, b"CustomResourceDefinition")].concat()),
            &field(2, &field(2, &version)),
        ]
        .concat();
        assert!(decode(crd, &bytes).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(POD, &envelope("Pod", &raw));
            let _ = decode(POD, &raw);
            let _ = decode(POD, &[MAGIC, &raw].concat());
        }

        #[test]
        fn broken_bodies_never_panic(at in 0usize..220, byte in any::<u8>()) {
            let mut bytes = include_bytes!("testdata/deployment.pb").to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let target = Target { group: "apps", version: "v1", kind: "Deployment", type_name: "io.k8s.api.apps.v1.Deployment" };
            let _ = decode(target, &bytes);
            let _ = decode(target, &bytes[..at]);
        }
    }
}
