//! YAML bodies.
//!
//! Kubernetes reads YAML by a YAML 1.1 library, turns it into JSON and reads that: `0644` is octal, `yes` is true,
//! numbers and booleans become strings where they are keys, and a duplicate key is an error only to strict validation.
//! A parser that hands out events with their style and place makes all that possible, which serde's view of YAML
//! (values only) does not.
//!
//! Aliases are copied where they stand, within `MAX_ALIASED` bytes for the whole body, so that a few lines that
//! multiply by nine each ("a billion laughs") end there.

use super::bounds::Bounds;
use super::{Decoded, Head, Strict, Target, any, head, judge, typed, unrecognized};
use crate::apiserver::FieldValidation;
use longshore_api::Status;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// What anchored nodes and their copies may hold together, as `weight` counts it.
const MAX_ALIASED: usize = 4 * 1024 * 1024;
/// Duplicate keys that are reported.
const MAX_DUPLICATES: usize = 100;

/// Decoded, and as it is written.
pub fn body(bytes: &[u8], target: &Target<'_>, validation: FieldValidation) -> Result<(Decoded, Value), Status> {
    let text = String::from_utf8_lossy(bytes);
    let document = document(&text).map_err(|why| unrecognized(target, &format!("yaml: {why}"), bytes))?;
    let text_at = |field| match document.tree.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => {
            let what = any::go_kind(other);
            let why = format!("json: cannot unmarshal {what} into Go struct field .{field} of type string");
            Err(unrecognized(target, &format!("couldn't get version/kind; json parse error: {why}"), bytes))
        }
    };
    let found = Head::new(text_at("apiVersion")?, text_at("kind")?, target);
    let message = found.message(target).map_err(|why| found.refuse(target, &why))?;
    let (mut tree, mut complaints) = typed::read(message, &document.tree, validation != FieldValidation::Ignore)
        .map_err(|error| error.to_string())
        .and_then(|read| read)
        .map_err(|why| found.refuse(target, &why))?;
    if !document.duplicates.is_empty() {
        complaints.insert(0, format!("yaml: unmarshal errors:\n  {}", document.duplicates.join("\n  ")));
    }
    found.check_version(target)?;
    head(&mut tree, target);
    let decoded = judge(Strict { tree, complaints }, validation, |why| found.refuse(target, why))?;
    Ok((decoded, document.tree))
}

/// One YAML document as JSON.
pub struct Document {
    pub tree: Value,
    /// `line 5: key "image" already set in map`
    pub duplicates: Vec<String>,
}

/// The error names the line where there is one: `line 3: did not find expected …`.
pub fn document(text: &str) -> Result<Document, String> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        aliased: 0,
        bounds: Bounds::default(),
        duplicates: Vec::new(),
    };
    let mut tree = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => break,
            (Event::StreamStart | Event::Nothing | Event::DocumentStart(_) | Event::DocumentEnd, _) => {}
            (_, line) if tree.is_some() => return Err(format!("line {line}: expected a single document")),
            (event, line) => tree = Some(reader.node(event, line)?),
        }
    }
    Ok(Document { tree: tree.unwrap_or_default(), duplicates: reader.duplicates })
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Value>,
    aliased: usize,
    bounds: Bounds,
    duplicates: Vec<String>,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, usize), String> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(sentence(&error)),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, event: Event<'t>, line: usize) -> Result<Value, String> {
        let (anchor, value) = match event {
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).ok_or_else(|| format!("line {line}: unknown anchor"))?;
                let value = value.clone();
                return self.charge(&value).map(|()| value);
            }
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(text, style, tag.as_deref())),
            Event::SequenceStart(anchor, _) => (anchor, self.sequence()?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping()?),
            _ => return Err(format!("line {line}: unexpected end of a node")),
        };
        if anchor != 0 {
            self.charge(&value)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    /// Counts a copy before it lives on, here or among the anchors.
    fn charge(&mut self, value: &Value) -> Result<(), String> {
        self.aliased += weight(value);
        if self.aliased > MAX_ALIASED { Err("document contains excessive aliasing".into()) } else { Ok(()) }
    }

    fn sequence(&mut self) -> Result<Value, String> {
        self.bounds.enter().map_err(|e| e.to_string())?;
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => break,
                (event, line) => items.push(self.node(event, line)?),
            }
        }
        self.bounds.leave();
        Ok(Value::Array(items))
    }

    fn mapping(&mut self) -> Result<Value, String> {
        self.bounds.objects(1).and_then(|()| self.bounds.enter()).map_err(|e| e.to_string())?;
        let (mut entries, mut merged) = (Map::new(), Vec::new());
        loop {
            let (event, line) = self.next()?;
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = match event {
                Event::MappingEnd => break,
                event => self.node(event, line)?,
            };
            let (event, value_line) = self.next()?;
            let value = self.node(event, value_line)?;
            if merge {
                merged.push(value);
                continue;
            }
            let key = key_text(key).map_err(|why| format!("line {line}: {why}"))?;
            if entries.contains_key(&key) && self.duplicates.len() < MAX_DUPLICATES && key.len() < 1024 {
                self.duplicates.push(format!("line {line}: key {key:?} already set in map"));
            }
            entries.insert(key, value);
        }
        for source in merged {
            let sources = if let Value::Array(all) = source { all } else { vec![source] };
            for source in sources {
                let Value::Object(source) = source else {
                    return Err("map merge requires map or sequence of maps as the value".into());
                };
                for (key, value) in source {
                    entries.entry(key).or_insert(value);
                }
            }
        }
        self.bounds.leave();
        Ok(Value::Object(entries))
    }
}

/// Bytes of text and some for each node, objects at what they cost.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 32 + text.len(),
        Value::Array(items) => 32 + items.iter().map(weight).sum::<usize>(),
        Value::Object(entries) => 64 + entries.iter().map(|(k, v)| 32 + k.len() + weight(v)).sum::<usize>(),
        _ => 32,
    }
}

fn sentence(error: &ScanError) -> String {
    format!("line {}: {}", error.marker().line(), error.info())
}

fn key_text(key: Value) -> Result<String, String> {
    match key {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null => Err("null can't be a key".into()),
        Value::Array(_) | Value::Object(_) => Err("a list or map can't be a key".into()),
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    match (core, style) {
        (Some("str" | "binary" | "timestamp"), _) => text.into(),
        (Some("int" | "float" | "bool" | "null"), _) | (None, ScalarStyle::Plain) => plain(text),
        _ => text.into(),
    }
}

/// What an unquoted scalar means in YAML 1.1.
fn plain(text: Cow<'_, str>) -> Value {
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => false.into(),
        other => match number(other) {
            Some(number) => Value::Number(number),
            None => text.into(),
        },
    }
}

fn number(text: &str) -> Option<Number> {
    if text.len() > 64 || !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| {
        let shape = digits.trim_start_matches(['+', '-']);
        let exponent_at = shape.find(['e', 'E']).unwrap_or(shape.len());
        let mantissa = &shape[..exponent_at];
        let decimal = mantissa.bytes().all(|b| b.is_ascii_digit() || b == b'.') && mantissa.bytes().any(|b| b != b'.');
        let float = decimal.then(|| digits.parse::<f64>().ok()).flatten()?;
        // Kubernetes's way over JSON writes a float without a fraction as an integer.
        if float.fract() == 0.0 && float.abs() < 9e15 { Some((float as i64).into()) } else { Number::from_f64(float) }
    })
}

/// Go's `ParseInt` with base 0: `0x`, `0o`, `0b` and a leading zero say the base.
fn integer(text: &str) -> Option<Number> {
    let (sign, body) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (base, body) = match body.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &body[2..]),
        [b'0', b'o' | b'O', ..] => (8, &body[2..]),
        [b'0', b'b' | b'B', ..] => (2, &body[2..]),
        [b'0', _, ..] => (8, &body[1..]),
        _ => (10, body),
    };
    if !body.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    let signed = i64::from_str_radix(&format!("{sign}{body}"), base).ok().map(Number::from);
    signed.or_else(|| u64::from_str_radix(body, base).ok().filter(|_| sign.is_empty()).map(Number::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(text: &str) -> Value {
        document(text).unwrap().tree
    }

    #[test]
    fn scalars_mean_what_they_do_in_kubernetes() {
        let text = "a: 0644\nb: '0644'\nc: yes\nd: 1.0\ne: 1.5\nf: 0x1F\ng: ~\nh: !!str 1\ni: 2001-12-14\n1: x\ntrue: n\nj: 1_000\n\
                    k: -0\nl: 1e3\nm: 0o17\nn2: .5\no: \"\"\np: 1.2.3\nq: .\nr: 09\ns: 12345678901234567890\nt: -\n";
        let expected = json!({"a":420,"b":"0644","c":true,"d":1,"e":1.5,"f":31,"g":null,"h":"1","i":"2001-12-14","1":"x",
            "true":false,"j":1000,"k":0,"l":1000,"m":15,"n2":0.5,"o":"","p":"1.2.3","q":".","r":9,
            "s":12345678901234567890u64,"t":"-"});
        let text = text.replace("t: -\n", "t: '-'\n");
        assert_eq!(tree(&text), expected);
    }

    #[test]
    fn anchors_aliases_and_merges() {
        let text = "base: &b {x: 1, z: 2}\nuse: *b\nmore:\n  <<: *b\n  z: 3\nlist: {<<: [*b, {w: 4}]}\n";
        assert_eq!(
            tree(text),
            json!({"base":{"x":1,"z":2},"use":{"x":1,"z":2},"more":{"x":1,"z":3},"list":{"x":1,"z":2,"w":4}})
        );
    }

    #[test]
    fn duplicates_are_named_by_line() {
        let document = document("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap();
        assert_eq!(
            document.duplicates,
            ["line 4: key \"c\" already set in map", "line 5: key \"a\" already set in map"]
        );
        assert_eq!(document.tree, json!({"a":3,"b":{"c":2}}));
    }

    #[test]
    fn one_document_only() {
        assert!(document("a: 1\n---\nb: 2\n").is_err());
        assert_eq!(tree("---\na: 1\n...\n"), json!({"a":1}));
        assert_eq!(tree(""), Value::Null);
    }

    #[test]
    fn hostile_documents_end_early() {
        let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 9].join(",");
            laughs.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert_eq!(document(&laughs).err().unwrap(), "document contains excessive aliasing");
        let started = std::time::Instant::now();
        for deep in [
            "[",
            "{a: ",
            "- ",
            "? ",
            "&a [",
            "{",
            "a: {",
            "!!str ",
            "*",
            "'",
            "|\n",
            "%TAG !a! b\n",
            "\"\\x41",
            "a: *b\n",
            "- &a x\n",
            "#\n",
            "\t",
            "!<a> ",
            "[a,\n",
            "{a,",
            "- |\n",
            "---\n",
            "a: >\n x\n",
        ] {
            let _ = document(&deep.repeat(300_000 / deep.len()));
        }
        let _ = document(&format!("a: {}", "x ".repeat(500_000)));
        let _ = document(&"a:\n".repeat(300_000));
        let indented: String = (0..1500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(document(&indented).is_err());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
