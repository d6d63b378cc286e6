//! `kubectl apply --server-side`, as it is.

use longshore_e2e::Installation;

const MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, size: small}
";

#[test]
fn kubectl_applies_by_the_server() {
    let installation = Installation::start();
    let kubectl = installation.kubectl();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name).display().to_string();
        std::fs::write(&path, text).unwrap();
        path
    };
    let (first, second) = (write("first.yaml", MAP), write("second.yaml", &MAP.replace(", size: small", "")));
    let data = || kubectl.run(&["get", "configmap", "settings", "-o", "jsonpath={.data}"]);

    let said = kubectl.run(&["apply", "--server-side", "-f", &first]);
    assert!(said.contains("configmap/settings serverside-applied"), "{said}");
    let owners = "jsonpath={range .metadata.managedFields[*]}{.manager} {.operation};{end}";
    let owners = || kubectl.run(&["get", "configmap", "settings", "--show-managed-fields", "-o", owners]);
    assert_eq!(owners(), "kubectl Apply;");
    assert_eq!(kubectl.run(&["diff", "--server-side", "-f", &first]), "");

    // What is left out goes; what another has changed is a conflict until it is forced.
    kubectl.run(&["apply", "--server-side", "-f", &second]);
    assert_eq!(data(), r#"{"color":"blue"}"#);
    kubectl.run(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"color":"red"}}"#]);
    let refused = kubectl.try_run(&["apply", "--server-side", "-f", &second]).unwrap_err();
    assert!(refused.contains("conflict with \"kubectl-patch\" using v1: .data.color"), "{refused}");
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &second]);
    assert_eq!(data(), r#"{"color":"blue"}"#);
    assert_eq!(owners(), "kubectl Apply;");

    // An object that kubectl has applied by itself so far.
    kubectl.run(&["delete", "configmap", "settings"]);
    kubectl.run(&["apply", "-f", &first]);
    assert_eq!(owners(), "");
    let third = write("third.yaml", &MAP.replace("blue", "green"));
    kubectl.run(&["apply", "--server-side", "-f", &third]);
    assert_eq!(data(), r#"{"color":"green","size":"small"}"#);
    let said = kubectl.run(&["apply", "--server-side", "-f", &third]);
    assert!(said.contains("serverside-applied"), "{said}");
}
