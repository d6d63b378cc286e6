//! YAML both ways: reading documents with the line of every field, and printing trees.
//!
//! The server reads YAML too and its reading is the one that counts; this one is for what must happen before asking it
//! (which kind, which name, which path) and for putting its errors beside the lines they are about.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub value: Value,
    /// The line (from 1) of each field, by its path as Kubernetes writes it: `spec.containers[0].image`.
    pub lines: BTreeMap<String, usize>,
    /// Where it begins (from 1).
    pub line: usize,
    /// Its text alone, as it can be sent.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: usize,
    pub message: String,
}

/// Deeper than any real object, shallow enough for any stack.
const MAX_DEPTH: usize = 100;
/// Aliases may not blow a small text up ("billion laughs"): no more values than this come out of one file.
const MAX_VALUES: usize = 200_000;

/// Reads all documents; empty ones (a file that begins with `---`) are left out.
pub fn read(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), lines: BTreeMap::new(), values: 0 };
    let mut documents = Vec::new();
    let source: Vec<&str> = text.split('\n').collect();
    let mut start = 1;
    while let Some((event, line)) = reader.next()? {
        match event {
            Event::DocumentStart(_) => {
                reader.lines.clear();
                let Some((first, line)) = reader.next()? else { break };
                let value = reader.value(first, line, "", 0)?;
                if !value.is_null() {
                    let lines = std::mem::take(&mut reader.lines);
                    documents.push(Document { value, lines, line: start, text: String::new() });
                }
            }
            Event::DocumentEnd => start = line,
            _ => {}
        }
    }
    // The parser's marks for a document's end differ by how it ends, so the text is cut at the separators themselves.
    let mut pieces = cut(&source).into_iter().filter(|(_, text)| !blank(text));
    for document in &mut documents {
        if let Some((line, text)) = pieces.next() {
            (document.line, document.text) = (line, text);
        }
    }
    Ok(documents)
}

/// The texts between `---` lines, with the line each begins at.
fn cut(source: &[&str]) -> Vec<(usize, String)> {
    let mut pieces = vec![(1, String::new())];
    for (index, line) in source.iter().enumerate() {
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- ") {
            pieces.push((index + 2, String::new()));
            continue;
        }
        if marker == "..." {
            continue;
        }
        if let Some((_, text)) = pieces.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    pieces
}

fn blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Value>,
    lines: BTreeMap<String, usize>,
    values: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>, SyntaxError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, span.start.line()))),
            Some(Err(error)) => {
                Err(SyntaxError { line: error.marker().line().max(1), message: error.info().to_string() })
            }
        }
    }

    fn expect(&mut self) -> Result<(Event<'a>, usize), SyntaxError> {
        self.next()?.ok_or(SyntaxError { line: 1, message: "unexpected end".into() })
    }

    fn value(&mut self, event: Event<'a>, line: usize, path: &str, depth: usize) -> Result<Value, SyntaxError> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(SyntaxError { line, message: "too deeply nested or too large".into() });
        }
        if !path.is_empty() {
            self.lines.entry(path.to_string()).or_insert(line);
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let string = style != ScalarStyle::Plain || tag.is_some_and(|t| t.suffix == "str");
                (anchor, if string { Value::String(text.into_owned()) } else { plain(&text) })
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().unwrap_or(Value::Null);
                self.values += size(&value);
                return Ok(value);
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.expect()? {
                        (Event::SequenceEnd, _) => break,
                        (event, line) => {
                            let path = format!("{path}[{}]", items.len());
                            items.push(self.value(event, line, &path, depth + 1)?);
                        }
                    }
                }
                (anchor, Value::Array(items))
            }
            Event::MappingStart(anchor, _) => (anchor, Value::Object(self.mapping(path, depth)?)),
            _ => (0, Value::Null),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Result<Map<String, Value>, SyntaxError> {
        let mut map = Map::new();
        loop {
            let (key, line) = match self.expect()? {
                (Event::MappingEnd, _) => return Ok(map),
                (Event::Scalar(key, ..), line) => (key.into_owned(), line),
                (_, line) => return Err(SyntaxError { line, message: "a key must be plain text".into() }),
            };
            let path = child(path, &key);
            self.lines.insert(path.clone(), line);
            let (event, at) = self.expect()?;
            let value = self.value(event, at, &path, depth + 1)?;
            if key == "<<" {
                if let Value::Object(merged) = value {
                    merged.into_iter().for_each(|(k, v)| {
                        map.entry(k).or_insert(v);
                    });
                }
            } else if map.insert(key.clone(), value).is_some() {
                return Err(SyntaxError { line, message: format!("{key:?} is set twice") });
            }
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// A key as it appears in Kubernetes's field paths: `labels[a/b]` where it isn't a plain field.
fn child(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_string()
    } else if key.contains(['.', '/']) {
        format!("{path}[{key}]")
    } else {
        format!("{path}.{key}")
    }
}

/// A plain scalar by YAML's core schema, which is what Kubernetes's readers agree on.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.starts_with(|c: char| c.is_ascii_digit()) || unsigned.starts_with('.') {
        if let Ok(number) = text.strip_prefix('+').unwrap_or(text).parse::<i64>() {
            return Value::Number(number.into());
        }
        let radix =
            |prefix: &str, radix| unsigned.strip_prefix(prefix).and_then(|d| i64::from_str_radix(d, radix).ok());
        if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)).filter(|_| unsigned.len() == text.len()) {
            return Value::Number(number.into());
        }
        let float = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
        if let Some(number) = float.then(|| text.parse::<f64>().ok().and_then(Number::from_f64)).flatten() {
            return Value::Number(number);
        }
    }
    Value::String(text.to_string())
}

impl Document {
    /// The line of a field, or of the closest field around it that the document has (a missing field is reported at its
    /// parent), or of the document.
    pub fn line_of(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.line,
            }
        }
    }
}

/// What the server said about a document, at the lines it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub line: usize,
    pub message: String,
}

/// Places a failed answer: each cause at its field; messages that name fields in quotes (strict decoding) at those.
pub fn marks(document: &Document, status: &longshore_api::Status) -> Vec<Mark> {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let mut marks: Vec<Mark> = causes
        .filter(|cause| !cause.field.is_empty())
        .flat_map(|cause| match quoted_fields(document, &cause.message) {
            quoted if quoted.is_empty() => {
                let message = shortened(&format!("{}: {}", cause.field, cause.message));
                vec![Mark { line: document.line_of(&cause.field), message }]
            }
            quoted => quoted,
        })
        .collect();
    if marks.is_empty() {
        marks = quoted_fields(document, &status.message);
    }
    if marks.is_empty() {
        let line = line_in(&status.message).map_or(document.line, |line| document.line + line - 1);
        marks.push(Mark { line, message: shortened(&status.message) });
    }
    marks
}

/// `unknown field "spec.replcas", duplicate field "spec.x"` → both, each at its line.
fn quoted_fields(document: &Document, message: &str) -> Vec<Mark> {
    const FIELD: &str = " field \"";
    let mut marks = Vec::new();
    for (at, _) in message.match_indices(FIELD) {
        let what = message[..at].rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let name = message[at + FIELD.len()..].split('"').next().unwrap_or_default();
        if document.lines.contains_key(name) {
            marks.push(Mark { line: document.line_of(name), message: format!("{what}{FIELD}{name}\"") });
        }
    }
    marks
}

/// Without the middle of what is far too long: a server quotes whole objects.
fn shortened(message: &str) -> String {
    const MOST: usize = 600;
    if message.len() <= MOST {
        return message.into();
    }
    let (start, end) = (message.floor_char_boundary(MOST / 2), message.ceil_char_boundary(message.len() - MOST / 2));
    format!("{} … {}", &message[..start], &message[end..])
}

/// `… line 12 …` → 12, as YAML readers report.
fn line_in(message: &str) -> Option<usize> {
    let rest = message.split("line ").nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().filter(|line| *line > 0)
}

/// Prints a tree as people write it: two spaces, strings quoted only where they must be, texts of several lines as blocks.
pub fn print(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => entries(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => elements(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

/// Fields in the order people expect: what it is, its name, then the rest as it came.
fn entries(out: &mut String, map: &Map<String, Value>, depth: usize, inline_first: bool) {
    const FIRST: [&str; 5] = ["apiVersion", "kind", "metadata", "name", "namespace"];
    let rank = |key: &str| FIRST.iter().position(|f| *f == key).unwrap_or(FIRST.len());
    let mut keys: Vec<_> = map.iter().collect();
    keys.sort_by_key(|(key, _)| (rank(key), *key == "status"));
    for (index, (key, value)) in keys.into_iter().enumerate() {
        if !(inline_first && index == 0) {
            indent(out, depth);
        }
        text(out, key);
        out.push(':');
        nested(out, value, depth);
    }
}

fn elements(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(out, depth);
        out.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                out.push(' ');
                entries(out, map, depth + 1, true);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                elements(out, inner, depth + 1);
            }
            other => {
                out.push(' ');
                scalar(out, other, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            entries(out, map, depth + 1, false);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            elements(out, items, depth);
        }
        other => {
            out.push(' ');
            scalar(out, other, depth + 1);
            out.push('\n');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(s) if s.contains('\n') && block_can_carry(s) => {
            // `-`: no line end at the end, `+`: more than one.
            let chomp = if !s.ends_with('\n') {
                "-"
            } else if s.ends_with("\n\n") || s == "\n" {
                "+"
            } else {
                ""
            };
            out.push('|');
            out.push_str(chomp);
            let body = s.strip_suffix('\n').unwrap_or(s);
            for line in body.split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    indent(out, depth);
                    out.push_str(line);
                }
            }
        }
        Value::String(s) => text(out, s),
        other => out.push_str(&other.to_string()),
    }
}

/// A block's indentation is found from its first line, and it carries printable characters only.
fn block_can_carry(s: &str) -> bool {
    !s.starts_with([' ', '\n', '\t'])
        && !s.contains("\r")
        && s.chars().all(|c| {
            c == '\n'
                || c == '\t'
                || !c.is_control() && c != '\u{feff}' && !('\u{2028}'..='\u{2029}').contains(&c) && c != '\u{85}'
        })
}

fn text(out: &mut String, s: &str) {
    if needs_quotes(s) {
        // JSON's strings are YAML's double-quoted ones.
        out.push_str(&Value::from(s).to_string());
    } else {
        out.push_str(s);
    }
}

/// Whether a plain scalar would be read as something else, by YAML 1.1 readers (`yes`, `on`, `1_000`, dates) too.
fn needs_quotes(s: &str) -> bool {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "<<", "="];
    s.is_empty()
        || WORDS.contains(&s.to_ascii_lowercase().as_str())
        || s.starts_with(|c: char| c.is_ascii_digit() || "-+.?:,[]{}#&*!|>'\"%@`= \t".contains(c)) && !safe_start(s)
        || s.ends_with([' ', '\t', ':'])
        || s.contains(": ")
        || s.contains(" #")
        || s.chars().any(|c| {
            c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
        })
        || s.contains(['{', '}', '[', ']', ',']) && s.starts_with(['{', '['])
}

/// Texts that begin like a number or a flag but can't be one: `10.0.0.1`, `2026.1-alpha`, `-c`, `./run`, `--flag=x`.
fn safe_start(s: &str) -> bool {
    let first = s.as_bytes()[0];
    match first {
        b'0'..=b'9' => {
            s.bytes().any(|b| b.is_ascii_alphabetic() && !b"eExXoObBaAcCdDfF_tTzZ".contains(&b)) && !s.contains(':')
                || s.bytes().filter(|b| *b == b'.').count() > 2 && s.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        }
        b'-' => {
            s.len() > 1
                && s.as_bytes()[1..].iter().any(u8::is_ascii_alphabetic)
                && !s.as_bytes()[1].is_ascii_digit()
                && s.as_bytes()[1] != b' '
                && s.as_bytes()[1] != b'.'
                && s != "---"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longshore_api::Status;
    use proptest::prelude::*;
    use serde_json::json;

    const TWO: &str = "# the app\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels:\n    example.com/x: y\ndata:\n  n: \"1\"\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: b\nspec:\n  containers:\n  - name: c\n    image: x:1\n  - name: d\n";

    #[test]
    fn reads_documents_with_the_lines_of_their_fields() {
        let documents = read(TWO).unwrap();
        assert_eq!(documents.len(), 2);
        let (first, second) = (&documents[0], &documents[1]);
        assert_eq!(first.value["data"]["n"], "1");
        assert_eq!((first.line, second.line), (1, 11));
        assert_eq!(first.line_of("metadata.labels[example.com/x]"), 7);
        assert_eq!(second.line_of("spec.containers[0].image"), 18);
        assert_eq!(second.line_of("spec.containers[1].image"), 19, "a missing field is shown at its parent");
        assert_eq!(second.line_of("nothing.here"), 11);
        assert!(second.text.starts_with("apiVersion: v1\nkind: Pod") && !first.text.contains("Pod"));
    }

    #[test]
    fn leading_separators_and_comments_are_no_documents() {
        let documents = read("---\n# only words\n---\nkind: A\n---\n").unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0].text.trim(), "kind: A");
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn says_where_the_syntax_is_wrong() {
        assert_eq!(read("a: 1\nb: [1, 2\nc: 3\n").unwrap_err().line, 3);
        assert_eq!(read("a: 1\na: 2\n").unwrap_err(), SyntaxError { line: 2, message: "\"a\" is set twice".into() });
        assert!(read(&"[".repeat(5000)).is_err());
    }

    #[test]
    fn laughs_are_bounded() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            let refs = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        assert!(read(&text).is_err());
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let value =
            &read("a: 1\nb: 1.5\nc: yes\nd: ~\ne: 0x1f\nf: '1'\ng: 10.0.0.1\nh: !!str 7\ni: true\nj: 1e3\nk: 100m\n")
                .unwrap()[0]
                .value;
        assert_eq!(
            value,
            &json!({"a": 1, "b": 1.5, "c": "yes", "d": null, "e": 31, "f": "1", "g": "10.0.0.1", "h": "7", "i": true, "j": 1000.0, "k": "100m"})
        );
    }

    #[test]
    fn prints_as_people_write() {
        let tree = json!({"kind": "Pod", "status": {}, "metadata": {"name": "a", "labels": {}}, "apiVersion": "v1",
            "spec": {"containers": [{"image": "x:1", "args": ["-c", "echo hi\nsleep 1\n"], "name": "c"}], "answer": "yes"}});
        assert_eq!(
            print(&tree),
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {}\nspec:\n  containers:\n  - name: c\n    image: x:1\n    args:\n    - -c\n    - |\n      echo hi\n      sleep 1\n  answer: \"yes\"\nstatus: {}\n"
        );
    }

    #[test]
    fn server_errors_land_on_their_lines() {
        let second = &read(TWO).unwrap()[1];
        let mut status = Status::failure(400, "BadRequest", "");
        status.message = r#"strict decoding error: unknown field "spec.containers[1].name""#.into();
        assert_eq!(marks(second, &status)[0].line, 19);
        status.message = "something else".into();
        assert_eq!(marks(second, &status), [Mark { line: 11, message: "something else".into() }]);
        status.message = "error converting YAML to JSON: yaml: line 3: oh".into();
        assert_eq!(marks(second, &status)[0].line, 13);
    }

    fn trees() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(|n| json!(n)),
            "[ -~]{0,12}".prop_map(Value::String),
            "[-a-z0-9.:/ #\n]{0,16}".prop_map(Value::String),
            "\\PC{0,6}".prop_map(Value::String),
            "[0-9eE.+x_:-]{1,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[-a-zA-Z0-9./ :]{0,8}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(tree in trees()) {
            let tree = json!({"k": tree});
            let text = print(&tree);
            prop_assert_eq!(&read(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"))[0].value, &tree, "{}", text);
        }

        #[test]
        fn reading_never_panics(text in "[-a-z:&*!|>\\[\\]{}#'\" \n0-9]{0,80}") {
            let _ = read(&text);
        }
    }
}
