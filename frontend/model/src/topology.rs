//! The network as a picture: nodes on a ring around the server, the links between them, what runs where.
//!
//! The picture stays calm whatever there is: beyond [`ROOMY`] nodes they are discs with a count, and only the links of the
//! one that was chosen are drawn. It is painted as text, which is a fifth of the code that as many views would be; what
//! comes from the cluster is escaped.

use crate::kube::{Node, Service};
use crate::link::Link;
use crate::markup::escape;
use crate::node;
use crate::state::State;
use crate::table::pod_state;
use crate::words::{Word, t};
use crate::workload::Workload;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Up to so many nodes have room for what runs on them.
pub const ROOMY: usize = 6;
/// More nodes than these are not drawn.
pub const DRAWN: usize = 50;
/// Up to so many discs have their names below them.
const LABELLED: usize = 24;
/// Rows in a node's box, and dots in a row.
const ROWS: usize = 4;
const DOTS: usize = 5;

/// What is on a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    pub name: String,
    pub state: State,
    /// Whether its tunnel stands.
    pub connected: bool,
    pub pods: usize,
    /// Most pods first.
    pub groups: Vec<Group>,
}

/// Pods of one workload on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub namespace: String,
    pub name: String,
    pub states: Vec<State>,
    /// Services that lead to it.
    pub services: Vec<String>,
}

/// Whether a Service's selector means the workload.
pub fn leads_to(service: &Service, workload: &Workload) -> bool {
    let (selector, labels) = (&service.spec.selector, &workload.example().metadata.labels);
    service.metadata.namespace == workload.namespace
        && !selector.is_empty()
        && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// All nodes in the order of their names, with what runs there.
pub fn places(nodes: &[Arc<Node>], workloads: &[Workload], services: &[Service], now: i64) -> Vec<Place> {
    let place = |node: &Arc<Node>| {
        let here = workloads.iter().filter_map(|workload| {
            let pods = workload.pods.iter().filter(|p| p.spec.node_name == node.metadata.name);
            let states: Vec<State> = pods
                .map(|pod| {
                    let ready = pod.status.container_statuses.iter().filter(|c| c.ready).count() as i64;
                    pod_state(&pod.status.phase, Some((ready, pod.spec.containers.len() as i64)))
                })
                .collect();
            let leading = services.iter().filter(|service| leads_to(service, workload));
            (!states.is_empty()).then(|| Group {
                namespace: workload.namespace.clone(),
                name: workload.name.clone(),
                states,
                services: leading.map(|s| s.metadata.name.clone()).collect(),
            })
        });
        let mut groups: Vec<Group> = here.collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.states.len()));
        let state = node::sentence(node, None, now).state;
        Place {
            name: node.metadata.name.clone(),
            state,
            connected: !matches!(state, State::Unknown | State::Progressing),
            pods: groups.iter().map(|group| group.states.len()).sum(),
            groups,
        }
    };
    nodes.iter().map(place).collect()
}

/// A place in the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Spot {
    pub x: i32,
    pub y: i32,
    /// Its box; a disc where there is no room for one.
    pub room: Option<(i32, i32)>,
    /// The disc's radius.
    pub disc: i32,
    /// Name or pods' names, cut to what fits.
    pub label: String,
    pub rows: Vec<Row>,
}

/// A workload in a node's box.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub label: String,
    /// Whether a Service leads to it.
    pub served: bool,
    pub dots: Vec<State>,
    /// Pods, or workloads, for which there is no room.
    pub more: usize,
}

/// A link, drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub direct: bool,
    pub path: String,
    /// What stands at its middle: the latency.
    pub label: String,
    pub at: (i32, i32),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    pub width: i32,
    pub height: i32,
    pub spots: Vec<Spot>,
    pub lines: Vec<Line>,
    /// Nodes for which there is no room.
    pub hidden: usize,
}

pub type Links = BTreeMap<String, Vec<Link>>;

/// Whose links have to be known for the picture.
pub fn followed(places: &[Place], chosen: Option<&str>) -> Vec<String> {
    let wanted = |place: &&Place| place.connected && (places.len() <= ROOMY || chosen == Some(place.name.as_str()));
    places.iter().filter(wanted).map(|place| place.name.clone()).collect()
}

/// `narrow` is for a phone: higher than wide, discs only.
pub fn picture(places: &[Place], links: &Links, chosen: Option<&str>, narrow: bool) -> Picture {
    let (width, height) = if narrow { (400, 480) } else { (760, 520) };
    let roomy = places.len() <= ROOMY && !narrow;
    let drawn = &places[..places.len().min(DRAWN)];
    let labelled = drawn.len() <= LABELLED;
    let (radius_x, radius_y) = match (narrow, roomy, labelled) {
        (_, true, _) => (270.0, 175.0),
        (false, _, _) => (330.0, 220.0),
        (true, _, true) => (140.0, 190.0),
        (true, _, false) => (175.0, 220.0),
    };
    let disc = match (labelled, narrow) {
        (true, _) => 14,
        (false, false) => 12,
        (false, true) => 9,
    };
    let (center_x, center_y) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
    let spot = |(index, place): (usize, &Place)| {
        // The first stands at the left, so that two face each other.
        let turn = std::f64::consts::TAU * (index as f64 / drawn.len() as f64 + 0.5);
        let (x, y) = ((center_x + radius_x * turn.cos()) as i32, (center_y + radius_y * turn.sin()) as i32);
        let rows = if roomy { rows(place) } else { Vec::new() };
        let room = roomy.then(|| (180, 40 + 20 * rows.len() as i32));
        let letters = if roomy { 20 } else { 14 };
        let label = if roomy || labelled { cut(&place.name, letters) } else { String::new() };
        Spot { x, y, room, disc, label, rows }
    };
    let spots: Vec<Spot> = drawn.iter().enumerate().map(spot).collect();
    let mut lines = Vec::new();
    for (a, place) in drawn.iter().enumerate() {
        for (b, other) in drawn.iter().enumerate().skip(a + 1) {
            let between = |from: &str, to: &str| links.get(from)?.iter().find(|link| link.node == to);
            let Some(link) = between(&place.name, &other.name).or_else(|| between(&other.name, &place.name)) else {
                continue;
            };
            let both = [place.name.as_str(), other.name.as_str()];
            if chosen.map_or(places.len() <= ROOMY, |chosen| both.contains(&chosen)) {
                lines.push(line(&spots[a], &spots[b], link, (center_x, center_y)));
            }
        }
    }
    Picture { width, height, spots, lines, hidden: places.len() - drawn.len() }
}

/// Direct ones go around the server, others through it.
fn line(a: &Spot, b: &Spot, link: &Link, center: (f64, f64)) -> Line {
    let (ax, ay, bx, by) = (f64::from(a.x), f64::from(a.y), f64::from(b.x), f64::from(b.y));
    let (middle_x, middle_y) = ((ax + bx) / 2.0, (ay + by) / 2.0);
    let (out_x, out_y) = (middle_x - center.0, middle_y - center.1);
    let (pull_x, pull_y) = match link.direct {
        None => (center.0 - out_x, center.1 - out_y),
        // Those that face each other have no outside.
        Some(_) if out_x.hypot(out_y) < 40.0 => (middle_x - (by - ay) * 0.4, middle_y + (bx - ax) * 0.4),
        // Neighbours' lines bulge less, or they would leave the picture.
        Some(_) => {
            let share = ((bx - ax).hypot(by - ay) / out_x.hypot(out_y)).min(1.0) * 0.5;
            (middle_x + out_x * share, middle_y + out_y * share)
        }
    };
    let path = format!("M{} {}Q{} {} {} {}", a.x, a.y, pull_x as i32, pull_y as i32, b.x, b.y);
    let at = (((middle_x + pull_x) / 2.0) as i32, ((middle_y + pull_y) / 2.0) as i32);
    let label = link.round_trip_microseconds.filter(|_| link.direct.is_some()).map(crate::link::milliseconds);
    Line { direct: link.direct.is_some(), path, label: label.map(|ms| format!("{ms} ms")).unwrap_or_default(), at }
}

fn rows(place: &Place) -> Vec<Row> {
    let row = |group: &Group| Row {
        label: cut(&group.name, 11),
        served: !group.services.is_empty(),
        dots: group.states.iter().copied().take(DOTS).collect(),
        more: group.states.len().saturating_sub(DOTS),
    };
    let mut rows: Vec<Row> = place.groups.iter().take(ROWS).map(row).collect();
    if place.groups.len() > ROWS {
        rows.push(Row { label: String::new(), served: false, dots: Vec::new(), more: place.groups.len() - ROWS });
    }
    rows
}

fn cut(name: &str, letters: usize) -> String {
    match name.chars().count() > letters {
        true => name.chars().take(letters - 1).chain(['…']).collect(),
        false => name.into(),
    }
}

/// The picture's inside as SVG; a node's group carries its name in `data-node`.
pub fn paint(picture: &Picture, places: &[Place], chosen: Option<&str>) -> String {
    let mut out = String::new();
    let (x, y) = (picture.width / 2, picture.height / 2);
    for (spot, place) in picture.spots.iter().zip(places).filter(|(_, place)| place.connected) {
        let away = if chosen.is_some_and(|chosen| chosen != place.name) { " faint" } else { "" };
        out += &format!(r#"<path class="tunnel{away}" d="M{} {}L{x} {y}"/>"#, spot.x, spot.y);
    }
    for line in &picture.lines {
        let class = if line.direct { "direct" } else { "relayed" };
        out += &format!(r#"<path class="link {class}" d="{}"/>"#, line.path);
        out += &format!(r#"<text class="link-label" x="{}" y="{}">{}</text>"#, line.at.0, line.at.1 + 4, line.label);
    }
    out += &format!(
        r#"<circle class="hub" cx="{x}" cy="{y}" r="24"/><text class="hub-label" x="{x}" y="{}">{}</text>"#,
        y + 4,
        t(Word::TheServer)
    );
    for (spot, place) in picture.spots.iter().zip(places) {
        let lit = if chosen == Some(&place.name) { " lit" } else { "" };
        let away = if place.connected { "" } else { " away" };
        let (class, name) = (place.state.class(), escape(&place.name));
        out += &format!(
            r#"<g class="spot {class}{lit}{away}" transform="translate({} {})" data-node="{name}">"#,
            spot.x, spot.y
        );
        let label = escape(&spot.label);
        match spot.room {
            None => {
                out += &format!(
                    r#"<circle r="{}"/><text class="spot-count" y="4">{}</text><text class="spot-label" y="29">{label}</text>"#,
                    spot.disc, place.pods
                );
            }
            Some((width, height)) => {
                let (left, top) = (-width / 2, -height / 2);
                out += &format!(
                    r#"<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8"/><text class="spot-name" x="{}" y="{}">{label}</text>"#,
                    left + 12,
                    top + 23
                );
                spot.rows
                    .iter()
                    .enumerate()
                    .for_each(|(n, row)| paint_row(&mut out, row, left + 12, top + 45 + 20 * n as i32));
            }
        }
        out += "</g>";
    }
    out
}

fn paint_row(out: &mut String, row: &Row, x: i32, y: i32) {
    let class = if row.served { "served" } else { "" };
    *out += &format!(r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, escape(&row.label));
    let mut at = if row.dots.is_empty() { x } else { x + 88 };
    for state in &row.dots {
        let (class, radius) = (state.class(), if *state == State::Good { 4 } else { 3 });
        *out += &format!(r#"<circle class="dot {class}" cx="{at}" cy="{}" r="{radius}"/>"#, y - 4);
        at += 11;
    }
    if row.more > 0 {
        *out += &format!(r#"<text class="spot-more" x="{}" y="{y}">+{}</text>"#, at - 4, row.more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Read;
    use crate::workload;
    use serde_json::json;

    fn node(name: &str, ready: &str) -> Arc<Node> {
        Arc::new(Read::read(&json!({
            "metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}
        })))
    }

    fn many(nodes: usize, pods: usize) -> Vec<Place> {
        let nodes: Vec<_> = (0..nodes).map(|n| node(&format!("n{n}"), "True")).collect();
        let pods = (0..pods).map(|n| {
            Arc::new(Read::read(&json!({
                "metadata": {"name": format!("p{n}"), "namespace": "a", "labels": {"app": format!("w{}", n % 20)},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": format!("w{}", n % 20), "controller": true}]},
                "spec": {"nodeName": format!("n{}", n % nodes.len()), "containers": [{}]},
                "status": {"phase": "Running", "containerStatuses": [{"ready": n % 2 == 0}]}
            })))
        });
        let service = Service::read(
            &json!({"metadata": {"name": "front", "namespace": "a"}, "spec": {"selector": {"app": "w1"}}}),
        );
        places(&nodes, &workload::group(pods), &[service], 0)
    }

    #[test]
    fn places_hold_pods_by_workload() {
        let places = many(2, 60);
        assert_eq!((places[1].pods, places[1].groups.len()), (30, 10));
        let fronted = places[1].groups.iter().find(|g| g.name == "w1").unwrap();
        assert_eq!(
            (fronted.services.as_slice(), fronted.states[0]),
            (["front".to_string()].as_slice(), State::Degraded)
        );
        let silent = super::places(&[node("a", "Unknown")], &[], &[], 0);
        assert!(!silent[0].connected && followed(&silent, Some("a")).is_empty());
    }

    #[test]
    fn what_is_drawn_is_bounded_and_inside() {
        for (nodes, narrow) in [(1, false), (2, false), (6, false), (50, false), (80, false), (50, true)] {
            let places = many(nodes, 1_000);
            let drawn = picture(&places, &Links::new(), None, narrow);
            assert_eq!(drawn.spots.len() + drawn.hidden, nodes);
            for spot in &drawn.spots {
                let (half_width, half_height) = spot.room.map_or((spot.disc, spot.disc), |(w, h)| (w / 2, h / 2));
                assert!(spot.x - half_width >= 0 && spot.x + half_width <= drawn.width, "{spot:?}");
                assert!(spot.y - half_height >= 0 && spot.y + half_height <= drawn.height, "{spot:?}");
                assert!(spot.rows.len() <= ROWS + 1 && spot.rows.iter().all(|row| row.dots.len() <= DOTS));
            }
        }
    }

    #[test]
    fn names_stay_text_and_all_nodes_can_be_pressed() {
        let mut places = many(3, 30);
        places[0].name = "<b onload=\"x\">".into();
        places[1].connected = false;
        let painted = paint(&picture(&places, &Links::new(), None, false), &places, Some("n2"));
        assert!(painted.contains("&lt;b onload=&quot;x&quot;&gt;") && !painted.contains("<b"));
        assert_eq!(painted.matches("data-node=").count(), 3);
        assert_eq!((painted.matches("class=\"tunnel").count(), painted.matches(" away\"").count()), (2, 1));
    }

    #[test]
    fn many_nodes_show_the_links_of_the_chosen_one() {
        let link = |to: &str, direct: bool| Link {
            node: to.into(),
            direct: direct.then(|| "192.0.2.1:1".into()),
            round_trip_microseconds: Some(1_250),
            ..Link::default()
        };
        let links = Links::from([("n0".to_string(), vec![link("n1", true), link("n2", false)])]);
        let few = many(3, 3);
        let all = picture(&few, &links, None, false).lines;
        assert_eq!(
            all.iter().map(|l| (l.direct, l.label.as_str())).collect::<Vec<_>>(),
            [(true, "1.2 ms"), (false, "")]
        );
        assert_eq!(picture(&few, &links, Some("n2"), false).lines.len(), 1);
        let lots = many(20, 20);
        assert!(picture(&lots, &links, None, false).lines.is_empty() && followed(&lots, None).is_empty());
        assert_eq!(picture(&lots, &links, Some("n0"), false).lines.len(), 2);
        assert_eq!(followed(&lots, Some("n0")), ["n0"]);
    }
}
