//! What holds for all bodies: the encodings agree, strictness changes nothing but the complaints, and what is made of a body
//! is bounded by it.

use super::*;
use crate::apiserver::FieldValidation::{Ignore, Strict as Strictly, Warn};
use proptest::prelude::*;
use serde_json::{Map, json};
use std::time::{Duration, Instant};

const POD: Target<'static> = Target { group: "", version: "v1", kind: "Pod", type_name: "io.k8s.api.core.v1.Pod" };
const DEPLOYMENT: Target<'static> =
    Target { group: "apps", version: "v1", kind: "Deployment", type_name: "io.k8s.api.apps.v1.Deployment" };

/// Any tree, its strings of every kind that YAML reads as something else.
fn anything() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z]{0,6}",
        Just("yes".to_string()),
        Just("0644".into()),
        Just("1e3".into()),
        Just("~".into()),
        Just("null".into()),
        Just("- a".into()),
        Just("a: b".into()),
        Just("#x".into()),
        Just("2001-01-01".into()),
        Just(" lead".into()),
        Just("line\nbreak\n".into()),
        "[ -~]{0,8}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("k[a-z]{1,4}", inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A pod's body of fields that are and fields that are not.
fn pod() -> impl Strategy<Value = Value> {
    let field = "(metadata|spec|status|containers|name|labels|image|env|value|ports|containerPort|hostNetwork|nodeName|resources|limits|cpu|bogus|extra)";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..70_000).prop_map(Value::from),
        "[a-z0-9]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field, inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
    .prop_filter("an object", Value::is_object)
}

fn json(target: Target<'_>, text: &str, validation: FieldValidation) -> Result<Decoded, Status> {
    super::body(Some("application/json"), text.as_bytes(), &target, validation)
}

fn yaml(target: Target<'_>, text: &str, validation: FieldValidation) -> Result<Decoded, Status> {
    super::body(Some("application/yaml"), text.as_bytes(), &target, validation)
}

fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// JSON is YAML.
    #[test]
    fn yaml_reads_what_json_says(tree in prop::collection::btree_map("k[a-z]{1,4}", anything(), 0..6)) {
        let tree = Value::Object(tree.into_iter().collect::<Map<_, _>>());
        let read = super::yaml::document(&tree.to_string()).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&read.tree, &tree, "{}", tree);
        prop_assert!(read.duplicates.is_empty());
    }

    #[test]
    fn encodings_and_strictness_agree(body in pod()) {
        let text = body.to_string();
        let (warned, ignored, strict) = (json(POD, &text, Warn), json(POD, &text, Ignore), json(POD, &text, Strictly));
        match (&warned, &ignored) {
            (Ok(warned), Ok(ignored)) => {
                prop_assert_eq!(&warned.tree, &ignored.tree);
                prop_assert!(ignored.warnings.is_empty());
                prop_assert_eq!(strict.is_err(), !warned.warnings.is_empty(), "{:?}", warned.warnings);
                if let Err(status) = &strict {
                    prop_assert!(warned.warnings.iter().all(|w| status.message.contains(w)), "{}", status.message);
                }
            }
            (Err(_), Err(_)) => prop_assert!(strict.is_err()),
            _ => prop_assert!(false, "{:?} but {:?}", warned, ignored),
        }
        match (warned, yaml(POD, &text, Warn)) {
            (Ok(json), Ok(yaml)) => {
                prop_assert_eq!(json.tree, yaml.tree);
                prop_assert_eq!(json.warnings, yaml.warnings);
            }
            (Err(_), Err(_)) => {}
            (json, yaml) => prop_assert!(false, "JSON: {json:?}, YAML: {yaml:?}"),
        }
    }

    /// Anchors and aliases of every kind: an error or a bounded tree, in time.
    #[test]
    fn yaml_is_bounded(parts in prop::collection::vec(
        prop_oneof![
            Just("&a "), Just("*a"), Just("&b "), Just("*b"), Just("[*a, *a, *a]"), Just("{<<: *a}"), Just("- "), Just("a: "),
            Just("\n"), Just("  "), Just("? "), Just("<<: "), Just("[*b,*b,*b,*b]"), Just("{a: *a, b: *b}"), Just("|\n"), Just("x"),
        ],
        0..60,
    ), rounds in 1usize..40) {
        let text = parts.concat().repeat(rounds);
        let begun = Instant::now();
        if let Ok(document) = super::yaml::document(&text) {
            prop_assert!(nodes(&document.tree) <= text.len() + (1 << 20), "{} nodes of {} bytes", nodes(&document.tree), text.len());
        }
        prop_assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    /// A real message with bytes changed, doubled and cut: an answer, and one that can be stored.
    #[test]
    fn broken_messages_are_refused_or_read(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 0..6),
        cut in 0usize..400,
        doubled in 0usize..200,
    ) {
        let mut bytes = include_bytes!("testdata/deployment.pb").to_vec();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let at = doubled % bytes.len();
        let again = bytes[at..].to_vec();
        bytes.extend(again);
        bytes.truncate(4 + cut);
        let read = super::body(Some("application/vnd.kubernetes.protobuf"), &bytes, &DEPLOYMENT, Strictly);
        if let Ok(read) = read {
            prop_assert!(nodes(&read.tree) < 10_000);
            let again = json(DEPLOYMENT, &read.tree.to_string(), Ignore).map_err(|s| TestCaseError::fail(s.message))?;
            prop_assert_eq!(again.tree, read.tree);
        }
    }
}

#[test]
fn thousands_of_small_things_are_bounded() {
    for (text, words) in [
        (format!("{{\"spec\":{{\"containers\":[{}{{}}]}}}}", "{},".repeat(300_000)), "objects"),
        (format!("{{\"spec\":{}1{}}}", "[".repeat(5000), "]".repeat(5000)), ""),
    ] {
        let begun = Instant::now();
        let error = json(POD, &text, Warn).unwrap_err().message;
        assert!(error.contains(words), "{error}");
        assert!(error.len() < 4096 && begun.elapsed() < Duration::from_secs(10));
    }
    // A hundred thousand unknown fields are a bounded complaint.
    let fields: Vec<String> = (0..100_000).map(|n| format!("\"f{n}\":1")).collect();
    let text = format!("{{\"spec\":{{{}}}}}", fields.join(","));
    if let Ok(decoded) = json(POD, &text, Warn) {
        assert!(decoded.warnings.iter().map(String::len).sum::<usize>() < 1 << 20, "{}", decoded.warnings.len());
    }
    let status = json(POD, &text, Strictly).unwrap_err();
    assert!(status.message.len() < 1 << 20, "{} bytes of complaints", status.message.len());
    assert_eq!(json!(status.code), json!(400));
}
