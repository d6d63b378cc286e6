//! JSON bodies.

use super::{Decoded, Head, Strict, Target, golang, head, judge, typed, unrecognized};
use crate::apiserver::FieldValidation;
use longshore_api::Status;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

pub fn body(bytes: &[u8], target: &Target<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
    // Go replaces bytes that are no UTF-8; so do we, and the body stays readable.
    let text = String::from_utf8_lossy(bytes);
    let meta = interpret(&text)
        .map_err(|why| unrecognized(target, &format!("couldn't get version/kind; json parse error: {why}"), bytes))?;
    let found = Head::new(&meta.api_version, &meta.kind, target);
    let message = found.message(target).map_err(|why| found.refuse(target, &why))?;
    let mut source = serde_json::Deserializer::from_str(&text);
    let (mut tree, complaints) = typed::read(message, &mut source, validation != FieldValidation::Ignore)
        .map_err(|error| golang::json_error(&error, &text))
        .and_then(|read| read)
        .map_err(|why| found.refuse(target, &why))?;
    found.check_version(target)?;
    head(&mut tree, target);
    judge(Strict { tree, complaints }, validation, |why| found.refuse(target, why))
}

/// `kind` and `apiVersion` as they stand in the body, after a look at all of its syntax.
#[derive(Default)]
struct Meta {
    kind: String,
    api_version: String,
    wrong: Option<String>,
}

fn interpret(text: &str) -> Result<Meta, String> {
    let mut source = serde_json::Deserializer::from_str(text);
    // Nothing recurses here: values that don't matter are skipped by a loop.
    let meta = source.deserialize_any(MetaVisitor).map_err(|e| golang::json_error(&e, text))?;
    source.end().map_err(|e| golang::json_error(&e, text))?;
    match meta.wrong {
        Some(why) => Err(why),
        None => Ok(meta),
    }
}

struct MetaVisitor;

impl Meta {
    fn wrong(why: String) -> Self {
        Self { wrong: Some(why), ..Self::default() }
    }
    fn not_an_object(what: &str) -> Self {
        const TYPE: &str =
            r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        Self::wrong(format!("json: cannot unmarshal {what} into Go value of type {TYPE}"))
    }
}

impl<'de> Visitor<'de> for MetaVisitor {
    type Value = Meta;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Meta, A::Error> {
        let mut meta = Meta::default();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let (field, name) = match key.as_ref() {
                "kind" => (&mut meta.kind, "kind"),
                "apiVersion" => (&mut meta.api_version, "apiVersion"),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            match map.next_value::<Scalar>()? {
                Scalar::Text(text) => *field = text,
                Scalar::Null => {}
                Scalar::Other(what) => {
                    let why = format!("json: cannot unmarshal {what} into Go struct field .{name} of type string");
                    meta.wrong.get_or_insert(why);
                }
            }
        }
        Ok(meta)
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Meta, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Meta::not_an_object("array"))
    }
    fn visit_str<E>(self, _: &str) -> Result<Meta, E> {
        Ok(Meta::not_an_object("string"))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Meta, E> {
        Ok(Meta::not_an_object("bool"))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Meta, E> {
        Ok(Meta::not_an_object("number"))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Meta, E> {
        Ok(Meta::not_an_object("number"))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Meta, E> {
        Ok(Meta::not_an_object("number"))
    }
    fn visit_unit<E>(self) -> Result<Meta, E> {
        Ok(Meta::default())
    }
}

enum Scalar {
    Text(String),
    Null,
    Other(&'static str),
}

impl<'de> serde::Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.into()))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other("bool"))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
                Ok(Scalar::Other("number"))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Scalar, E> {
                Ok(Scalar::Other("number"))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other("number"))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Null)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other("object"))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other("array"))
            }
        }
        source.deserialize_any(ScalarVisitor)
    }
}
