//! JSON bodies, as clients send them and as they should not.

use super::*;
use crate::apiserver::FieldValidation::{Ignore, Strict as Strictly, Warn};
use serde_json::json;

const DEPLOYMENT: Target<'static> =
    Target { group: "apps", version: "v1", kind: "Deployment", type_name: "io.k8s.api.apps.v1.Deployment" };
const POD: Target<'static> = Target { group: "", version: "v1", kind: "Pod", type_name: "io.k8s.api.core.v1.Pod" };

fn decode(target: Target<'_>, body: &str, validation: FieldValidation) -> Result<Decoded, Status> {
    super::body(Some("application/json"), body.as_bytes(), &target, validation)
}

fn error(target: Target<'_>, body: &str) -> String {
    let status = decode(target, body, Strictly).unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"));
    status.message
}

#[test]
fn a_body_becomes_canonical() {
    let body = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","creationTimestamp":null,"labels":{"x":null}},
        "spec":{"hostNetwork":false,"nodeSelector":{},"containers":[{"name":"c","stdin":true,"tty":false,
        "resources":{"limits":{"cpu":0.5,"memory":"1.5Gi"}},"livenessProbe":{"httpGet":{"port":8080,"path":""}}}]}}"#;
    let decoded = decode(POD, body, Strictly).unwrap();
    assert_eq!(
        decoded.tree,
        json!({"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","labels":{"x":""}},"status":{},
            "spec":{"containers":[{"name":"c","stdin":true,"resources":{"limits":{"cpu":"500m","memory":"1536Mi"}},
            "livenessProbe":{"httpGet":{"port":8080}}}]}})
    );
}

#[test]
fn the_url_fills_in_kind_and_version() {
    let decoded = decode(DEPLOYMENT, r#"{"metadata":{"name":"a"}}"#, Strictly).unwrap();
    assert_eq!(decoded.tree["apiVersion"], "apps/v1");
    assert_eq!(decoded.tree["kind"], "Deployment");
    assert_eq!(decoded.tree["spec"], json!({"strategy":{}}));
}

#[test]
fn wrong_kinds_and_versions_are_named() {
    assert_eq!(
        error(DEPLOYMENT, r#"{"kind":"Deployment","apiVersion":"extensions/v1beta1"}"#),
        "the API version in the data (extensions/v1beta1) does not match the expected API version (apps/v1)"
    );
    assert_eq!(
        error(POD, r#"{"kind":"Service","apiVersion":"v1"}"#),
        "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion"
    );
    assert_eq!(
        error(POD, r#"{"kind":"Foo","apiVersion":"v1"}"#),
        "Foo in version \"v1\" cannot be handled as a Pod: no kind \"Foo\" is registered for version \"v1\" in scheme \
         \"pkg/api/legacyscheme/scheme.go:30\""
    );
}

#[test]
fn wrong_types_are_named_as_go_does() {
    for (body, why) in [
        (
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"metadata":{"deletionTimestamp":"soon"}}"#,
            r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
        ),
    ] {
        let prefix = "Deployment in version \"v1\" cannot be handled as a Deployment: ";
        assert_eq!(error(DEPLOYMENT, body), format!("{prefix}{why}"));
    }
}

#[test]
fn unknown_and_duplicate_fields_fail_warn_or_pass() {
    let body = r#"{"spec":{"foo":1,"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"Name":"x","image":"a"}]}}},"Spec":{}}"#;
    let complaints = [
        "unknown field \"spec.foo\"",
        "duplicate field \"spec.replicas\"",
        "unknown field \"spec.template.spec.containers[0].Name\"",
        "unknown field \"Spec\"",
    ];
    let decoded = decode(DEPLOYMENT, body, Warn).unwrap();
    assert_eq!(decoded.warnings, complaints);
    assert_eq!(decoded.tree["spec"]["replicas"], 2);
    assert!(decoded.tree["spec"].get("foo").is_none() && decoded.tree.get("Spec").is_none());
    assert!(decode(DEPLOYMENT, body, Ignore).unwrap().warnings.is_empty());
    assert_eq!(
        error(DEPLOYMENT, body),
        format!(
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
            complaints.join(", ")
        )
    );
}

#[test]
fn what_is_no_object_is_shown() {
    for (body, message) in [
        (
            "",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            "{",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({)",
        ),
        (
            "{\"a\":x}",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of value ({\"a\":x})",
        ),
        (
            "{\"kind\":1}",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string ({\"kind\":1})",
        ),
        (
            "nonsense",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: invalid character 'o' looking for beginning of value (6e6f6e73656e7365)",
        ),
    ] {
        assert_eq!(error(POD, body), message);
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = format!("{}{}", "{\"spec\":".repeat(100_000), "}".repeat(100_000));
    assert!(error(POD, &deep).len() < 1000);
    let deep = format!("{{\"spec\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert!(error(POD, &deep).len() < 1000);
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(300), "]".repeat(300));
    let revision = Target {
        group: "apps",
        version: "v1",
        kind: "ControllerRevision",
        type_name: "io.k8s.api.apps.v1.ControllerRevision",
    };
    assert!(error(revision, &deep).contains("exceeded max depth"));
    let status = decode(POD, &" ".repeat(MAX_BODY + 1), Warn).unwrap_err();
    assert_eq!(status.code, 413);
    // Long keys in many complaints.
    let long = "k".repeat(10_000);
    let many: Vec<_> = (0..200).map(|i| format!("\"{long}{i}\":1")).collect();
    let decoded = decode(POD, &format!("{{{}}}", many.join(",")), Warn).unwrap();
    let containers = format!("{{\"spec\":{{\"containers\":[{}{{}}]}}}}", "{},".repeat(600_000));
    assert!(error(POD, &containers).ends_with("the body holds more than 100000 objects"));
    let nulls = format!("{{\"spec\":{{\"containers\":[{}null]}}}}", "null,".repeat(600_000));
    assert!(error(POD, &nulls).ends_with("the body holds more than 100000 objects"));
    assert!(decoded.warnings.iter().map(String::len).sum::<usize>() <= 64 * 1024);
}

#[test]
fn encodings_are_told_by_content_type() {
    let with = |content_type| super::body(content_type, b"{}", &POD, Warn).map(|_| ()).map_err(|s| s.code);
    assert_eq!(with(None), Ok(()));
    assert_eq!(with(Some("application/json; charset=utf-8")), Ok(()));
    assert_eq!(with(Some("application/xml")), Err(415));
}

#[test]
fn yaml_is_json_with_other_words() {
    let decode =
        |text: &str, validation| super::body(Some("application/yaml"), text.as_bytes(), &DEPLOYMENT, validation);
    let text =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  replicas: 3.0\n  foo: 1\n  replicas: 2\n";
    let decoded = decode(text, Warn).unwrap();
    assert_eq!(decoded.tree["spec"]["replicas"], 2);
    let complaints =
        "yaml: unmarshal errors:\n  line 7: key \"replicas\" already set in map, unknown field \"spec.foo\"";
    assert_eq!(decoded.warnings.join(", "), complaints);
    assert_eq!(
        decode(text, Strictly).unwrap_err().message,
        format!("Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {complaints}")
    );
    let error = decode("a: [", Strictly).unwrap_err().message;
    assert!(
        error.starts_with("the object provided is unrecognized (must be of type Deployment): yaml: line "),
        "{error}"
    );
    let error = decode("kind: [1]", Strictly).unwrap_err().message;
    assert!(error.contains("cannot unmarshal array into Go struct field .kind of type string"), "{error}");
    assert_eq!(decode("", Strictly).unwrap().tree["kind"], "Deployment");
}

proptest::proptest! {
    #[test]
    fn no_body_panics(text in "\\PC{0,200}", yaml in "[\\[\\]{}:,\\-&*!|> \n\"'a-c0-9?#%]{0,200}") {
        for validation in [Warn, Strictly] {
            let _ = decode(POD, &text, validation);
            let _ = super::body(Some("application/yaml"), text.as_bytes(), &POD, validation);
            let _ = super::body(Some("application/yaml"), yaml.as_bytes(), &POD, validation);
        }
    }

    /// What was decoded once decodes to itself.
    #[test]
    fn decoding_is_idempotent(replicas in -5i32..5, cpu in "[0-9]{1,3}(m|k|Mi|)", flag in proptest::bool::ANY, text in "[a-z]{0,3}") {
        let body = json!({"spec":{"replicas":replicas,"paused":flag,"template":{"spec":{"hostname":text,
            "containers":[{"name":text,"resources":{"limits":{"cpu":cpu}},"stdin":flag}]}}}});
        let once = decode(DEPLOYMENT, &body.to_string(), Strictly).unwrap().tree;
        let twice = decode(DEPLOYMENT, &once.to_string(), Strictly).unwrap().tree;
        proptest::prop_assert_eq!(once, twice);
    }
}

#[test]
fn options_and_subresources_decode_too() {
    let options = decode(
        Target::DELETE_OPTIONS,
        r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","gracePeriodSeconds":0}"#,
        Strictly,
    );
    assert_eq!(options.unwrap().tree["gracePeriodSeconds"], 0);
    let options = decode(Target::DELETE_OPTIONS, r#"{"propagationPolicy":"Background"}"#, Strictly);
    assert_eq!(options.unwrap().tree["propagationPolicy"], "Background");
    let scale = decode(Target::SCALE, r#"{"spec":{"replicas":3}}"#, Strictly).unwrap();
    assert_eq!(scale.tree["spec"]["replicas"], 3);
}
