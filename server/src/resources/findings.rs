//! What validation finds: a list of field errors, gathered with as few words as a rule needs.

use longshore_api::field::{Error, Path, Problem};
use longshore_api::quantity::Quantity;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Errors in the order in which they were found.
#[derive(Debug, Default)]
pub struct Findings(Vec<Error>);

impl Findings {
    pub fn push(&mut self, path: &Path, problem: Problem, detail: &str) {
        self.0.push(Error { path: path.clone(), problem, detail: detail.into() });
    }

    pub fn required(&mut self, path: &Path, detail: &str) {
        self.0.push(Error::required(path, detail));
    }

    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.0.push(Error::invalid(path, value, detail));
    }

    /// One `Invalid` for each sentence that a rule for names says about `value`.
    pub fn each(&mut self, path: &Path, value: &str, wrong: Vec<String>) {
        for sentence in wrong {
            self.invalid(path, value, sentence);
        }
    }

    pub fn forbidden(&mut self, path: &Path, detail: impl Into<String>) {
        self.0.push(Error::forbidden(path, detail));
    }

    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        self.0.push(Error::not_supported(path, value, supported));
    }

    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.0.push(Error::duplicate(path, value));
    }

    pub fn not_found(&mut self, path: &Path, value: impl Into<Value>, detail: impl Into<String>) {
        self.0.push(Error { path: path.clone(), problem: Problem::NotFound(value.into()), detail: detail.into() });
    }

    pub fn too_long(&mut self, path: &Path, max: usize) {
        self.0.push(Error::too_long(path, max));
    }

    pub fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        self.0.push(Error::too_many(path, actual, max));
    }

    /// A word that must be one of a few; an empty one is missing.
    pub fn one_of(&mut self, path: &Path, word: &str, supported: &[&str]) {
        match word {
            "" => self.required(path, ""),
            word if !supported.contains(&word) => self.not_supported(path, word, supported),
            _ => {}
        }
    }

    /// Like `one_of`, for a field that may be left out.
    pub fn none_or_one_of(&mut self, path: &Path, word: Option<&str>, supported: &[&str]) {
        if let Some(word) = word.filter(|w| !supported.contains(w)) {
            self.not_supported(path, word, supported);
        }
    }

    pub fn non_negative(&mut self, path: &Path, value: i64) {
        if value < 0 {
            self.invalid(path, value, NEGATIVE);
        }
    }

    pub fn immutable<T: PartialEq>(&mut self, path: &Path, new: &T, old: &T, shown: impl Into<Value>) {
        if new != old {
            self.invalid(path, shown, IMMUTABLE);
        }
    }

    /// Reads a quantity; one that is none is an error of its own.
    pub fn quantity(&mut self, path: &Path, text: &str) -> Option<Quantity> {
        match Quantity::parse(text) {
            Ok(quantity) => Some(quantity),
            Err(why) => {
                self.invalid(path, text, why);
                None
            }
        }
    }

    /// The part of `tree` named `field` as its type; a part that is absent is the type's empty value. What doesn't fit its
    /// type is an error, and its rules can't be judged.
    pub fn part<T: DeserializeOwned + Default>(&mut self, tree: &Value, field: &str) -> Option<T> {
        match tree.get(field) {
            None | Some(Value::Null) => Some(T::default()),
            Some(part) => match T::deserialize(part) {
                Ok(typed) => Some(typed),
                Err(why) => {
                    let problem = Problem::TypeInvalid(Value::Null);
                    self.0.push(Error { path: Path::new(field), problem, detail: why.to_string() });
                    None
                }
            },
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn into_errors(self) -> Vec<Error> {
        self.0
    }
}

pub const IMMUTABLE: &str = "field is immutable";
pub const NEGATIVE: &str = "must be greater than or equal to 0";

/// A list that may be absent.
pub fn all<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// A string that may be absent; Kubernetes takes an absent one for an empty one.
pub fn text(word: &Option<String>) -> &str {
    word.as_deref().unwrap_or_default()
}
