//! All pairs of workloads at once, by their policies alone.

use super::policy::{self, Direction, End, Judged, Labels, Policy};
use crate::markup::escape;
use crate::words::{Word, plural, t};
use crate::workload::Workload;
use std::collections::BTreeMap;

/// More rows than these are no table that anybody reads.
pub const SHOWN: usize = 40;

/// A row and a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Party {
    /// Empty: outside.
    pub namespace: String,
    pub name: String,
    /// The pod that stands for it, by which "why" is asked.
    pub example: String,
    pub pods: usize,
    end: End,
}

impl Party {
    fn is_outside(&self) -> bool {
        self.namespace.is_empty()
    }

    /// As [`super::why::Party`] has it.
    pub fn key(&self) -> String {
        if self.is_outside() { "outside".into() } else { format!("pod:{}/{}", self.namespace, self.example) }
    }

    fn title(&self) -> String {
        if self.is_outside() { t(Word::Outside).into() } else { escape(&self.name) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    All,
    /// These ports.
    Some(String),
    /// Everything, with some addresses out there.
    Addresses,
    None,
    /// Outside to outside.
    Nothing,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    pub parties: Vec<Party>,
    /// By who begins, then by who is reached.
    pub cells: Vec<Vec<Cell>>,
    /// Workloads that have no row.
    pub hidden: usize,
}

pub fn matrix(workloads: &[Workload], namespaces: &BTreeMap<String, Labels>, policies: &[Policy]) -> Matrix {
    let outside =
        Party { namespace: String::new(), name: String::new(), example: String::new(), pods: 0, end: End::default() };
    let party = |workload: &Workload| Party {
        namespace: workload.namespace.clone(),
        name: workload.name.clone(),
        example: workload.example().metadata.name.clone(),
        pods: workload.pods.len(),
        end: End::of(workload.example(), namespaces),
    };
    let parties: Vec<Party> = std::iter::once(outside).chain(workloads.iter().take(SHOWN).map(party)).collect();
    let row = |from: &Party| parties.iter().map(|to| cell(from, to, policies)).collect();
    let cells = parties.iter().map(row).collect();
    Matrix { cells, parties, hidden: workloads.len().saturating_sub(SHOWN) }
}

impl Cell {
    /// Its class, its shape and its words.
    fn shown(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::All => ("good", "✓", t(Word::CellAll)),
            Self::Some(ports) => ("degraded", "◐", ports),
            Self::Addresses => ("degraded", "◐", t(Word::CellAddresses)),
            Self::None => ("failing", "✕", t(Word::CellNone)),
            Self::Nothing => ("idle", "", "–"),
        }
    }
}

impl Matrix {
    /// A table's inside as HTML. `href`: where it is said why the one reaches the other.
    pub fn paint(&self, with_namespace: bool, href: impl Fn(&Party, &Party) -> String) -> String {
        let head = |party: &Party, scope: &str| {
            let about = match (party.is_outside(), plural(Word::Pods, party.pods as i64)) {
                (true, _) => String::new(),
                (_, pods) if with_namespace => format!("{} · {pods}", escape(&party.namespace)),
                (_, pods) => pods,
            };
            format!(r#"<th scope="{scope}">{}<small>{about}</small></th>"#, party.title())
        };
        let mut out = format!(r#"<caption>{}</caption><thead><tr><td></td>"#, t(Word::MatrixCaption));
        self.parties.iter().for_each(|party| out += &head(party, "col"));
        out += "</tr></thead><tbody>";
        for (from, cells) in self.parties.iter().zip(&self.cells) {
            out += "<tr>";
            out += &head(from, "row");
            for (to, cell) in self.parties.iter().zip(cells) {
                let (class, shape, words) = cell.shown();
                if *cell == Cell::Nothing {
                    out += &format!(r#"<td class="quiet">{words}</td>"#);
                    continue;
                }
                let names = [("from", from.title()), ("to", to.title())];
                let label =
                    Word::CellLabel.with(&[(names[0].0, &names[0].1), (names[1].0, &names[1].1), ("what", &words)]);
                let href = escape(&href(from, to));
                out += &format!(
                    r#"<td class="{class}"><a href="{href}" aria-label="{label}"><span aria-hidden="true">{shape}</span>{words}</a></td>"#
                );
            }
            out += "</tr>";
        }
        out + "</tbody>"
    }
}

fn cell(from: &Party, to: &Party, policies: &[Policy]) -> Cell {
    if from.is_outside() && to.is_outside() {
        return Cell::Nothing;
    }
    let judged = |direction, own: &End, other: &End| -> Judged { policy::judge(policies, direction, own, other) };
    let out = judged(Direction::Egress, &from.end, &to.end).ports();
    let into = judged(Direction::Ingress, &to.end, &from.end).ports();
    let ports = policy::both(&out, &into);
    if policy::is_everything(&ports) {
        return Cell::All;
    }
    let whole: Vec<_> = ports.iter().map(|p| policy::Ports { some: false, ..*p }).collect();
    match policy::text(&ports) {
        none if none.is_empty() => Cell::None,
        _ if policy::is_everything(&whole) => Cell::Addresses,
        text => Cell::Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::{NetworkPolicy, Pod};
    use crate::read::Read;
    use crate::workload::group;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pods(names: &[&str]) -> Vec<Workload> {
        group(names.iter().map(|name| {
            Arc::new(Pod::read(&json!({
                "metadata": {"name": name, "namespace": "a", "labels": {"app": name}},
                "status": {"podIP": "10.0.0.1", "phase": "Running"}
            })))
        }))
    }

    fn shown(policies: &[Value]) -> Vec<String> {
        let read =
            |spec: &Value| NetworkPolicy::read(&json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec}));
        let policies: Vec<Policy> = policies.iter().map(|spec| Policy::read(&read(spec))).collect();
        let matrix = matrix(&pods(&["api", "web"]), &BTreeMap::new(), &policies);
        let row = |row: &Vec<Cell>| {
            row.iter()
                .map(|cell| match cell {
                    Cell::All => "all".to_string(),
                    Cell::Some(ports) => ports.clone(),
                    Cell::Addresses => "some".into(),
                    Cell::None => "no".into(),
                    Cell::Nothing => "-".into(),
                })
                .collect::<Vec<_>>()
                .join(" | ")
        };
        matrix.cells.iter().map(row).collect()
    }

    #[test]
    fn without_policies_everybody_reaches_everybody() {
        assert_eq!(shown(&[]), ["- | all | all", "all | all | all", "all | all | all"]);
    }

    #[test]
    fn both_ends_have_to_allow_it() {
        let deny_in = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
        let api_from_web = json!({"podSelector": {"matchLabels": {"app": "api"}}, "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}, {"port": 90, "endPort": 99}]}]});
        let web_out = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [
            {"ports": [{"port": 95, "endPort": 200}]}, {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]});
        assert_eq!(shown(&[deny_in.clone(), api_from_web.clone()])[2], "all | TCP 80, 90–99 | no");
        let rows = shown(&[deny_in, api_from_web, web_out]);
        assert_eq!(rows, ["- | no | no", "all | no | no", "some | TCP 95–99 | no"]);
    }

    #[test]
    fn the_table_has_heads_and_every_cell_says_whom_it_is_of() {
        let mut matrix = matrix(&pods(&["api", "web"]), &BTreeMap::new(), &[]);
        matrix.parties[1].name = "<b>".into();
        let painted = matrix.paint(true, |from, to| format!("?from={}&to={}", from.key(), to.key()));
        assert_eq!((painted.matches("scope=\"col\"").count(), painted.matches("scope=\"row\"").count()), (3, 3));
        assert_eq!(painted.matches("<a href=").count(), 8);
        assert!(
            painted.contains(r#"href="?from=outside&amp;to=pod:a/web" aria-label="From Outside to web: "#),
            "{painted}"
        );
        assert!(!painted.contains("<b>"));
    }

    #[test]
    fn rows_are_bounded() {
        let names: Vec<String> = (0..100).map(|n| format!("w{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let matrix = matrix(&pods(&names), &BTreeMap::new(), &[]);
        assert_eq!((matrix.cells.len(), matrix.hidden), (SHOWN + 1, 60));
    }
}
