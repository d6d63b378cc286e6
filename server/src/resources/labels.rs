//! Labels and annotations below `spec`: those of pod templates, node selectors and the like. The metadata of objects
//! themselves is judged by `apiserver`, the same for every kind.

use super::findings::Findings;
use longshore_api::field::Path;
use longshore_api::names;
use std::collections::BTreeMap;

/// Keys and values of all annotations together.
const MAX_ANNOTATIONS: usize = 256 << 10;

pub fn labels(labels: Option<&BTreeMap<String, String>>, path: &Path, found: &mut Findings) {
    for (key, value) in labels.into_iter().flatten() {
        label_name(key, path, found);
        found.each(path, value, names::label_value(value));
    }
}

pub fn label_name(key: &str, path: &Path, found: &mut Findings) {
    found.each(path, key, names::qualified_name(key));
}

pub fn annotations(annotations: Option<&BTreeMap<String, String>>, path: &Path, found: &mut Findings) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        // Annotation keys may be written in capitals, prefix included.
        found.each(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        found.too_long(path, MAX_ANNOTATIONS);
    }
}
