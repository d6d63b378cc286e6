//! Label and field selectors: parsed once, matched often.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    NotExists(String),
    Greater(String, i64),
    Less(String, i64),
}

/// All requirements hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector(pub Vec<Requirement>);

impl LabelSelector {
    /// Reads the query form: `a=b,c!=d,e in (f,g),!h,i>3`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, rest: text };
        let mut requirements = Vec::new();
        if parser.peek().is_none() {
            return Ok(Self::default());
        }
        loop {
            requirements.push(parser.requirement()?);
            match parser.token() {
                None => return Ok(Self(requirements)),
                Some(",") => {}
                Some(other) => return Err(parser.error(&format!("found '{other}', expected: ',' or 'end of string'"))),
            }
        }
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|r| r.matches(labels))
    }

    /// The one `key=value` that a list can be narrowed by with an index, if there is one.
    pub fn equality(&self) -> Option<(&str, &str)> {
        self.0.iter().find_map(|r| match r {
            Requirement::In(key, values) if values.len() == 1 => Some((key.as_str(), values[0].as_str())),
            _ => None,
        })
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let number = |key: &str| labels.get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::NotExists(key) => !labels.contains_key(key),
            Self::Greater(key, n) => number(key).is_some_and(|v| v > *n),
            Self::Less(key, n) => number(key).is_some_and(|v| v < *n),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(key, values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Requirement::In(key, values) => write!(f, "{key} in ({})", values.join(","))?,
                Requirement::NotIn(key, values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(","))?,
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::NotExists(key) => write!(f, "!{key}")?,
                Requirement::Greater(key, n) => write!(f, "{key}>{n}")?,
                Requirement::Less(key, n) => write!(f, "{key}<{n}")?,
            }
        }
        Ok(())
    }
}

/// `metav1.LabelSelector` as it stands in specs (`matchLabels`, `matchExpressions`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecSelector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<SpecRequirement>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecRequirement {
    pub key: String,
    pub operator: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl SpecSelector {
    /// Err names an operator that isn't one; validation refuses such a spec before it is stored.
    pub fn compile(&self) -> Result<LabelSelector, String> {
        let mut all: Vec<Requirement> =
            self.match_labels.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect();
        for e in &self.match_expressions {
            let key = e.key.clone();
            all.push(match e.operator.as_str() {
                "In" => Requirement::In(key, e.values.clone()),
                "NotIn" => Requirement::NotIn(key, e.values.clone()),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::NotExists(key),
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            });
        }
        Ok(LabelSelector(all))
    }

    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

/// `metadata.name=a,spec.nodeName!=b`. Which fields a kind supports is the kind's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldRequirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    pub equal: bool,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let (field, value, equal) =
                split_term(term).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            all.push(FieldRequirement { field: field.into(), value: unescape(value)?, equal });
        }
        Ok(Self(all))
    }

    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|r| (field(&r.field).unwrap_or("") == r.value) == r.equal)
    }

    /// The value that `field` must equal, where the selector says so.
    pub fn equality(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['=', '!'])?;
    let (field, op) = term.split_at(at);
    [("!=", false), ("==", true), ("=", true)]
        .iter()
        .find_map(|(sign, equal)| op.strip_prefix(sign).map(|value| (field, value, *equal)))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{}",
                        other.map(String::from).unwrap_or_default()
                    ));
                }
            },
            '=' => return Err("invalid field selector: unescaped rune in value".into()),
            c => out.push(c),
        }
    }
    Ok(out)
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn error(&self, what: &str) -> String {
        format!("unable to parse requirement: {what}")
    }

    fn token(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return None;
        }
        let symbol = ["!=", "==", "=", "!", ",", "(", ")", ">", "<"].iter().find(|s| self.rest.starts_with(**s));
        let end = match symbol {
            Some(symbol) => symbol.len(),
            None => self
                .rest
                .find(|c: char| c.is_whitespace() || matches!(c, '!' | '=' | ',' | '(' | ')' | '>' | '<'))
                .unwrap_or(self.rest.len()),
        };
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token)
    }

    fn peek(&mut self) -> Option<&'a str> {
        let rest = self.rest;
        let token = self.token();
        self.rest = rest;
        token
    }

    fn key(&mut self) -> Result<String, String> {
        let key = self.token().unwrap_or("");
        let wrong = crate::names::qualified_name(key);
        match wrong.is_empty() {
            true => Ok(key.to_string()),
            false => Err(self.error(&format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; ")))),
        }
    }

    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            None | Some("," | ")") => Ok(String::new()),
            Some(word) => {
                let wrong = crate::names::label_value(word);
                if !wrong.is_empty() {
                    return Err(self.error(&format!(
                        "values[0][{}]: Invalid value: {word:?}: {}",
                        self.text,
                        wrong.join("; ")
                    )));
                }
                self.token();
                Ok(word.to_string())
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.peek() == Some("!") {
            self.token();
            return Ok(Requirement::NotExists(self.key()?));
        }
        let key = self.key()?;
        match self.peek() {
            None | Some(",") => Ok(Requirement::Exists(key)),
            Some(op @ ("=" | "==" | "!=")) => {
                self.token();
                let value = vec![self.value()?];
                Ok(if op == "!=" { Requirement::NotIn(key, value) } else { Requirement::In(key, value) })
            }
            Some(op @ (">" | "<")) => {
                self.token();
                let value = self.value()?;
                let n = value.parse().map_err(|_| {
                    self.error(&format!("values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"))
                })?;
                Ok(if op == ">" { Requirement::Greater(key, n) } else { Requirement::Less(key, n) })
            }
            Some(op @ ("in" | "notin")) => {
                self.token();
                let values = self.values()?;
                Ok(if op == "in" { Requirement::In(key, values) } else { Requirement::NotIn(key, values) })
            }
            Some(other) => Err(self.error(&format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"))),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.token() {
            Some("(") => {}
            other => return Err(self.error(&format!("found '{}', expected: '('", other.unwrap_or("")))),
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            match self.token() {
                Some(",") => {}
                Some(")") => return Ok(values),
                other => return Err(self.error(&format!("found '{}', expected: ',' or ')'", other.unwrap_or("")))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    #[test]
    fn matches_label_selectors() {
        let web = labels(&[("app", "web"), ("tier", "3")]);
        for yes in ["", "app", "app=web", "app == web", "app in (api, web)", "x!=y", "!x", "tier>2", "app notin (api)"]
        {
            assert!(LabelSelector::parse(yes).unwrap().matches(&web), "{yes}");
        }
        for no in ["app=api", "x", "!app", "tier<3", "app in (api)", "x=", "app!=web"] {
            assert!(!LabelSelector::parse(no).unwrap().matches(&web), "{no}");
        }
        for bad in ["a in", "a=b c", "=x", "a in (b", "a,,b", "a>x", "-a=b"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn matches_field_selectors() {
        let selector = FieldSelector::parse("metadata.name=a,spec.nodeName!=n").unwrap();
        assert!(selector.matches(|f| (f == "metadata.name").then_some("a")));
        assert!(!selector.matches(|_| Some("n")));
        assert!(FieldSelector::parse("nonsense").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }

        #[test]
        fn prints_what_it_parses(text in "[a-z]{1,3}(=[a-z]{0,3}| in \\([a-z],[b-d]\\)|!=[a-z]|>[0-9])?") {
            let parsed = LabelSelector::parse(&text).unwrap();
            prop_assert_eq!(LabelSelector::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }
}
