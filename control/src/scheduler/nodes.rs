//! The nodes as one batch sees them: what they have, and what is taken of it, this batch's own assignments included.

use crate::projection::{Node, Pod, Resources};
use crate::usage::Usage;
use crate::view::{Item, View};

pub(super) struct Nodes {
    all: Vec<State>,
}

pub(super) struct State {
    pub node: Item<Node>,
    pub usage: Usage,
    pub zone: String,
}

impl State {
    pub fn allocatable(&self) -> &Resources {
        &self.node.allocatable
    }
}

impl Nodes {
    pub fn of(view: &View) -> Self {
        let state = |node: Item<Node>| State {
            usage: view.usage(&node.meta.name).cloned().unwrap_or_default(),
            zone: node.zone_key(),
            node,
        };
        Self { all: view.list::<Node>().filter(|n| !n.meta.is_terminating()).map(state).collect() }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn get(&self, index: usize) -> &State {
        &self.all[index]
    }

    pub fn iter(&self) -> impl Iterator<Item = &State> {
        self.all.iter()
    }

    pub fn name(&self, index: usize) -> &str {
        &self.all[index].node.meta.name
    }

    /// Where a node stands in this batch.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.all.binary_search_by(|s| s.node.meta.name.as_str().cmp(name)).ok()
    }

    pub fn take(&mut self, index: usize, pod: &Pod) {
        self.all[index].usage.add(pod);
    }
}
