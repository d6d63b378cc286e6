//! Label selectors in specs: their rules, whether they match, and how tables print them.

use super::findings::{Findings, all};
use super::labels::{label_name, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use longshore_api::field::Path;
use longshore_api::names;
use std::collections::BTreeMap;

pub fn validate(selector: Option<&LabelSelector>, path: &Path, found: &mut Findings) {
    let Some(selector) = selector else { return };
    labels(selector.match_labels.as_ref(), &path.child("matchLabels"), found);
    for (i, requirement) in all(&selector.match_expressions).iter().enumerate() {
        validate_requirement(requirement, &path.child("matchExpressions").index(i), found);
    }
}

fn validate_requirement(requirement: &LabelSelectorRequirement, path: &Path, found: &mut Findings) {
    let values = all(&requirement.values);
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                found.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                found.forbidden(&path.child("values"), why);
            }
        }
        other => found.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    label_name(&requirement.key, &path.child("key"), found);
    for (i, value) in values.iter().enumerate() {
        found.each(&path.child("values").index(i), value, names::label_value(value));
    }
}

pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && all(&selector.match_expressions).is_empty()
}

/// Whether labels match; a selector that can't be understood matches nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value_of = |key: &str| labels.and_then(|l| l.get(key));
    selector.match_labels.iter().flatten().all(|(k, v)| value_of(k) == Some(v))
        && all(&selector.match_expressions).iter().all(|r| {
            let value = value_of(&r.key);
            let listed = value.is_some_and(|v| all(&r.values).contains(v));
            match r.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// The selector as a query string, its requirements ordered by key: `app=web,tier in (a,b)`. None where Kubernetes can't
/// make one of it.
pub fn query(selector: &LabelSelector) -> Option<String> {
    let equal = selector.match_labels.iter().flatten().map(|(k, v)| Some((k.clone(), format!("{k}={v}"))));
    let expressions = all(&selector.match_expressions).iter().map(|r| {
        let mut values = all(&r.values).to_vec();
        values.sort();
        let (key, list) = (&r.key, values.join(","));
        let shown = match (r.operator.as_str(), values.len()) {
            ("In", 1..) => format!("{key} in ({list})"),
            ("NotIn", 1..) => format!("{key} notin ({list})"),
            ("Exists", 0) => key.clone(),
            ("DoesNotExist", 0) => format!("!{key}"),
            _ => return None,
        };
        Some((key.clone(), shown))
    });
    let mut terms = equal.chain(expressions).collect::<Option<Vec<_>>>()?;
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    Some(terms.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>().join(","))
}

/// Labels as tables print them: `a=b,c=d`, or `<none>`.
pub fn shown_labels<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut terms: Vec<_> = labels.map(|(k, v)| format!("{k}={v}")).collect();
    terms.sort();
    if terms.is_empty() { "<none>".to_string() } else { terms.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn selector(value: serde_json::Value) -> LabelSelector {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn prints_and_matches() {
        let s = selector(json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["y", "x"]}, {"key": "z", "operator": "Exists"}]}));
        assert_eq!(query(&s).unwrap(), "a notin (x,y),app=web,z");
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(matches(&s, Some(&labels(&[("app", "web"), ("z", "")]))));
        assert!(!matches(&s, Some(&labels(&[("app", "web"), ("z", ""), ("a", "x")]))));
        assert!(query(&selector(json!({"matchExpressions": [{"key": "a", "operator": "In"}]}))).is_none());
    }

    #[test]
    fn says_what_is_wrong() {
        let s = selector(json!({"matchExpressions": [{"key": "-", "operator": "In"}, {"key": "a", "operator": "Is"}]}));
        let mut found = Findings::default();
        validate(Some(&s), &Path::new("spec.selector"), &mut found);
        let got: Vec<_> = found.into_errors().iter().map(ToString::to_string).collect();
        assert_eq!(
            got[0],
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
        );
        assert!(
            got[1]
                .starts_with("spec.selector.matchExpressions[0].key: Invalid value: \"-\": name part must consist of")
        );
        assert_eq!(
            got[2],
            "spec.selector.matchExpressions[1].operator: Invalid value: \"Is\": not a valid selector operator"
        );
    }
}
