//! The tables of realistic objects, as `kubectl get -o wide` prints them.

use super::samples;
use crate::resources::registry;
use serde_json::Value;

fn table() -> String {
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let mut out = String::new();
    for (name, mut sample) in samples() {
        let kind = registry().by_name(name).unwrap();
        (kind.default)(&mut sample);
        let shown = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), String::from);
        let cells: Vec<_> = (kind.cells)(&sample, now).iter().map(shown).collect();
        let columns = kind
            .columns
            .iter()
            .map(|c| if c.priority == 0 { c.name.to_uppercase() } else { c.name.to_uppercase() + "*" });
        out.push_str(&format!("{name}\n"));
        for (column, cell) in columns.zip(cells) {
            out.push_str(&format!("  {column}: {cell}\n"));
        }
    }
    out
}

#[test]
fn tables_read_as_kubectl_prints_them() {
    insta::assert_snapshot!(table());
}

#[test]
fn every_column_says_what_it_is() {
    for kind in registry().all() {
        assert!(!kind.columns.is_empty(), "{}", kind.kind);
        for column in kind.columns {
            assert!(!column.name.is_empty() && !column.description.is_empty(), "{} {}", kind.kind, column.name);
        }
    }
}
