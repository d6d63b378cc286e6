//! Sentences of Go's own libraries that clients get to see: JSON syntax errors, time parsing, summaries of bodies.

/// The first bytes of a body, as error messages show it: text if it looks like JSON, hex otherwise.
pub fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (shown, more) = match bytes {
        [] => return "<empty>".into(),
        long if long.len() > SHOWN => (&long[..SHOWN], " ..."),
        short => (short, ""),
    };
    match shown[0] {
        b'{' => format!("{}{more}", String::from_utf8_lossy(shown)),
        _ => format!("{}{more}", hex::encode(shown)),
    }
}

/// What Go's JSON scanner says where `serde_json` says `error`.
pub fn json_error(error: &serde_json::Error, text: &str) -> String {
    use serde_json::error::Category;
    let said = error.to_string();
    let sentence = said.split(" at line ").next().unwrap_or_default();
    match error.classify() {
        Category::Eof => return "unexpected end of JSON input".into(),
        _ if said.starts_with("recursion limit") => return "exceeded max depth".into(),
        Category::Syntax => {}
        _ => return sentence.into(),
    }
    let context = match sentence {
        "key must be a string" => "looking for beginning of object key string",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "trailing characters" => "after top-level value",
        "invalid escape" => "in string escape code",
        said if said.starts_with("control character") => "in string literal",
        "invalid number" => "in numeric literal",
        "trailing comma" => "looking for beginning of value",
        _ => "looking for beginning of value",
    };
    let culprit = text.lines().nth(error.line().saturating_sub(1)).and_then(|line| {
        let column = error.column().saturating_sub(1);
        line.get(column..)?.chars().next()
    });
    match culprit {
        Some(c) => format!("invalid character {} {context}", quoted(c)),
        None => "unexpected end of JSON input".into(),
    }
}

fn quoted(c: char) -> String {
    match c {
        '\'' => r"'\''".into(),
        '"' => "'\"'".into(),
        c => format!("'{}'", c.escape_debug()),
    }
}

/// A time that Go's `time.Parse` refuses, in its words.
pub fn time_error(text: &str, layout: &str) -> String {
    let elements =
        [(0..4, "2006"), (4..5, "-"), (5..7, "01"), (7..8, "-"), (8..10, "02"), (10..11, "T"), (11..13, "15")];
    let text: String = text.chars().take(100).collect();
    let wrong = elements.into_iter().find(|(at, element)| match text.get(at.clone()) {
        Some(part) if element.len() == 1 => part != *element,
        Some(part) => !part.bytes().all(|b| b.is_ascii_digit()),
        None => true,
    });
    match wrong {
        Some((at, element)) => {
            let rest = text.get(at.start..).unwrap_or_default();
            format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}")
        }
        None => format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"Z07:00\""),
    }
}
