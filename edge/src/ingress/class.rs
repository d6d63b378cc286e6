//! Which Ingresses are this edge's.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

/// `spec.controller` of the classes that are ours.
pub const CONTROLLER: &str = "longshore.dev/edge";
/// The class that needs no IngressClass when it is named by the old annotation.
pub const LEGACY_CLASS: &str = "longshore";
const LEGACY_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Whether an Ingress is ours: by its class's controller, by the old annotation, or, where it names none, unless another
/// controller's class is the default.
pub fn is_ours(ingress: &Ingress, classes: &[IngressClass]) -> bool {
    let class_is_ours =
        |class: &IngressClass| class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(CONTROLLER);
    let named = |name: &str| classes.iter().find(|class| class.metadata.name.as_deref() == Some(name));
    if let Some(name) = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref()) {
        return named(name).is_some_and(class_is_ours);
    }
    if let Some(name) = ingress.metadata.annotations.as_ref().and_then(|all| all.get(LEGACY_ANNOTATION)) {
        return named(name).map_or(name == LEGACY_CLASS, class_is_ours);
    }
    let is_default = |class: &&IngressClass| {
        class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_ANNOTATION)).is_some_and(|v| v == "true")
    };
    let mut defaults = classes.iter().filter(is_default).peekable();
    defaults.peek().is_none() || defaults.any(class_is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(name: &str, controller: &str, default: bool) -> IngressClass {
        let annotations = json!({DEFAULT_ANNOTATION: default.to_string()});
        let class = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}});
        serde_json::from_value(class).unwrap()
    }

    fn ingress(class: Option<&str>, legacy: Option<&str>) -> Ingress {
        let annotations = legacy.map_or(json!({}), |name| json!({LEGACY_ANNOTATION: name}));
        let spec = class.map_or(json!({}), |name| json!({"ingressClassName": name}));
        serde_json::from_value(json!({"metadata": {"name": "a", "annotations": annotations}, "spec": spec})).unwrap()
    }

    #[test]
    fn ours_is_what_names_our_class_or_none() {
        let classes = [class("edge", CONTROLLER, false), class("nginx", "k8s.io/ingress-nginx", false)];
        for (named, legacy, expected) in [
            (Some("edge"), None, true),
            (Some("nginx"), None, false),
            (Some("gone"), None, false),
            (Some("nginx"), Some("edge"), false),
            (None, Some("edge"), true),
            (None, Some("nginx"), false),
            (None, Some(LEGACY_CLASS), true),
            (None, None, true),
        ] {
            assert_eq!(is_ours(&ingress(named, legacy), &classes), expected, "{named:?} {legacy:?}");
        }
        assert!(!is_ours(&ingress(None, None), &[class("nginx", "k8s.io/ingress-nginx", true)]));
        assert!(is_ours(&ingress(None, None), &[class("edge", CONTROLLER, true)]));
    }
}
