//! How a node reaches another one, in words.

use crate::read::{Read, shape};
use crate::state::State;
use crate::words::{Word, t};

shape!(
    /// As a node tells it at `/proxy/links`.
    Link { node: String, direct: Option<String>, round_trip_microseconds: Option<i64>, sent: i64, received: i64 }
);
shape!(Links { links: Vec<Link> });

/// What the page shows of one link.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub state: State,
    pub what: &'static str,
    pub how: String,
    pub traffic: String,
}

pub fn link_sentence(link: &Link) -> Said {
    let traffic = Word::LinkTraffic.with(&[("sent", &size(link.sent)), ("received", &size(link.received))]);
    match &link.direct {
        Some(address) => {
            let way = match link.round_trip_microseconds {
                Some(micros) => {
                    Word::LinkDirectText.with(&[("address", address), ("milliseconds", &milliseconds(micros))])
                }
                None => address.clone(),
            };
            Said { state: State::Good, what: t(Word::LinkDirect), how: way, traffic }
        }
        None => {
            Said { state: State::Degraded, what: t(Word::LinkRelayed), how: t(Word::LinkRelayedText).into(), traffic }
        }
    }
}

pub fn milliseconds(microseconds: i64) -> String {
    format!("{}.{}", microseconds / 1000, microseconds % 1000 / 100)
}

/// Takes what came into `waiting`; the links of the last whole line, where there is one.
pub fn newest_links(waiting: &mut String, text: &str) -> Option<Vec<Link>> {
    waiting.push_str(text);
    let end = waiting.rfind('\n')?;
    let lines: String = waiting.drain(..=end).collect();
    let last = lines.lines().rfind(|line| !line.is_empty())?;
    serde_json::from_str(last).ok().map(|line| Links::read(&line).links)
}

/// Bytes as people read them.
fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(direct: Option<&str>) -> Link {
        Link {
            node: "b".into(),
            direct: direct.map(Into::into),
            round_trip_microseconds: direct.map(|_| 1_250),
            sent: 999,
            received: 12_340_000,
        }
    }

    #[test]
    fn a_link_says_its_path_and_its_traffic() {
        let direct = link_sentence(&link(Some("192.0.2.1:5")));
        assert_eq!((direct.state, direct.what), (State::Good, "Direct"));
        assert_eq!(direct.how, "192.0.2.1:5, 1.2 ms there and back");
        assert_eq!(direct.traffic, "999 B out, 12.3 MB in");
        assert_eq!(link_sentence(&link(None)).what, "Over the server");
    }

    #[test]
    fn the_last_whole_line_counts() {
        let mut waiting = String::new();
        let text = String::from("{\"links\":[]}\n")
            + r#"{"links":[{"node":"b","mtu":1420,"sent":999,"received":12340000}]}"#
            + "\n";
        assert_eq!(newest_links(&mut waiting, &text[..text.len() - 5]), Some(vec![]));
        assert_eq!(newest_links(&mut waiting, &text[text.len() - 5..]), Some(vec![link(None)]));
        assert_eq!((newest_links(&mut waiting, "{"), waiting.as_str()), (None, "{"));
    }
}
