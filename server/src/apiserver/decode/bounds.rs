//! What one body may make us build, whatever its encoding.
//!
//! Bytes alone bound nothing: three bytes of JSON (`{},`) in a list of containers become an object of its own, and an
//! object costs some 600 bytes of memory. So objects and nesting are counted while they are built.

use std::fmt;

/// Objects and lists within each other. Kubernetes's types nest some 20 deep, and a custom schema some 60.
pub const MAX_DEPTH: usize = 128;
/// Objects in one body: some 60 MB at worst. The largest objects that are sent (slices of 1,000 endpoints, status of
/// nodes with many images) have some thousands.
const MAX_OBJECTS: usize = 100_000;

#[derive(Debug, Default)]
pub struct Bounds {
    depth: usize,
    objects: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    Depth,
    Objects,
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => f.write_str("exceeded max depth"),
            Self::Objects => write!(f, "the body holds more than {MAX_OBJECTS} objects"),
        }
    }
}

impl Bounds {
    /// Before the contents of an object or list; `leave` after them.
    pub fn enter(&mut self) -> Result<(), TooMuch> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(TooMuch::Depth) } else { Ok(()) }
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    pub fn objects(&mut self, count: usize) -> Result<(), TooMuch> {
        self.objects += count;
        if self.objects > MAX_OBJECTS { Err(TooMuch::Objects) } else { Ok(()) }
    }
}
