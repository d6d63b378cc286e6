//! A cluster's current state in memory: every object once, ordered as lists are, with the indexes that lists need.
//!
//! Pure: nothing here waits, locks or knows about time. The bytes are shared (`Arc<Object>`), so that a list clones
//! pointers only. An index holds names, never objects, and is always checked against the whole selector afterwards: a
//! wrong index could make a list slow, never wrong.
//!
//! A memory that nobody looks at can be frozen: what it held is packed away until it is thawed, and until then only its size
//! is known.

use super::frozen::{Frozen, Text};
use super::object::{Key, Object, ResourceName, Revision};
use longshore_api::selector::{FieldSelector, LabelSelector};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// Namespace and name: an object's place within its resource, in the order of lists.
pub(super) type Place = (Arc<str>, Arc<str>);

/// The selectable fields worth an index: those by which someone selects a few out of very many, all the time (each
/// node's own pods, the events of one object). Others are compared one by one.
const INDEXED_FIELDS: [&str; 3] = ["spec.nodeName", "involvedObject.uid", "involvedObject.name"];

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    pub resource: ResourceName,
    /// None lists all namespaces (and is right for cluster-scoped kinds).
    pub namespace: Option<Arc<str>>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// The last key of the page before.
    pub after: Option<Key>,
    /// At most so many items; None for all.
    pub limit: Option<usize>,
    /// The state as it was at this revision: pages after the first name the first one's. None for the newest.
    pub at: Option<Revision>,
    /// Only objects that this uid owns.
    pub owner: Option<Arc<str>>,
    /// `resourceVersion=0`: any state will do, also when this replica's lease has run out.
    pub stale: bool,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The state's revision: the list's `resourceVersion`, from which a watch goes on.
    pub revision: Revision,
    pub items: Vec<Arc<Object>>,
    /// The last key of this page, where there are more.
    pub next: Option<Key>,
    /// How many objects come after this page; None where a selector was given (Kubernetes leaves it out then, too).
    pub remaining: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    tables: HashMap<ResourceName, Table>,
    owned: HashMap<Arc<str>, BTreeSet<Key>>,
    count: usize,
    bytes: usize,
    /// Where all of it is, if it isn't at hand.
    frozen: Option<Frozen>,
}

/// The objects of one resource.
#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<Place, Arc<Object>>,
    labels: HashMap<String, HashMap<String, BTreeSet<Place>>>,
    fields: HashMap<(&'static str, String), BTreeSet<Place>>,
}

impl Memory {
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.tables.get(&key.resource)?.objects.get(&place(key))
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// How many of each resource.
    pub fn counts(&self) -> BTreeMap<ResourceName, usize> {
        self.tables.iter().map(|(resource, table)| (resource.clone(), table.objects.len())).collect()
    }

    /// The size of all objects' JSON.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Packs everything away. What can't be packed stays as it is.
    pub fn freeze(&mut self) {
        let objects = self.tables.values().flat_map(|table| table.objects.values()).map(|object| &**object);
        match Frozen::of(objects) {
            Ok(frozen) => (self.tables, self.owned, self.frozen) = (HashMap::new(), HashMap::new(), Some(frozen)),
            Err(error) => tracing::warn!(%error, "a cluster's objects could not be packed"),
        }
    }

    /// Takes everything out again; `read` makes an object of its text. Nothing to do where nothing is frozen. An error leaves
    /// it frozen.
    pub fn thaw(&mut self, read: impl Fn(Text) -> io::Result<Object>) -> io::Result<()> {
        let Some(frozen) = &self.frozen else { return Ok(()) };
        let objects: Vec<Object> = frozen.texts()?.into_iter().map(read).collect::<Result<_, _>>()?;
        *self = Self::default();
        objects.into_iter().for_each(|object| self.insert(Arc::new(object)));
        Ok(())
    }

    pub fn insert(&mut self, object: Arc<Object>) {
        let key = object.key.clone();
        self.remove(&key);
        let place = place(&key);
        for owner in &object.owners {
            self.owned.entry(owner.clone()).or_default().insert(key.clone());
        }
        self.count += 1;
        self.bytes += object.json.len();
        let table = self.tables.entry(key.resource).or_default();
        for (label, value) in &object.labels {
            if !table.labels.contains_key(label) {
                table.labels.insert(label.clone(), HashMap::new());
            }
            let values = table.labels.get_mut(label).expect("made above");
            values.entry(value.clone()).or_default().insert(place.clone());
        }
        for (field, value) in indexed_fields(&object) {
            table.fields.entry((field, value.clone())).or_default().insert(place.clone());
        }
        table.objects.insert(place, object);
    }

    pub fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let table = self.tables.get_mut(&key.resource)?;
        let place = place(key);
        let object = table.objects.remove(&place)?;
        for (label, value) in &object.labels {
            if let Some(values) = table.labels.get_mut(label) {
                forget(values, value, &place);
                if values.is_empty() {
                    table.labels.remove(label);
                }
            }
        }
        for (field, value) in indexed_fields(&object) {
            forget(&mut table.fields, &(field, value.clone()), &place);
        }
        if table.objects.is_empty() {
            self.tables.remove(&key.resource);
        }
        for owner in &object.owners {
            forget(&mut self.owned, owner, key);
        }
        self.count -= 1;
        self.bytes -= object.json.len();
        Some(object)
    }

    /// All objects that `uid` owns, of whatever resource.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        self.owned.get(uid).into_iter().flatten().filter_map(|key| self.get(key)).cloned().collect()
    }

    /// A page of the newest state, or of an older one: `undone` then says for each key that changed since what it was.
    pub fn list(
        &self,
        query: &ListQuery,
        revision: Revision,
        undone: &BTreeMap<Place, Option<Arc<Object>>>,
    ) -> Listing {
        let limit = query.limit.filter(|n| *n > 0).unwrap_or(usize::MAX);
        let mut page = Page { query, limit, items: Vec::new(), more: 0 };
        let table = self.tables.get(&query.resource);
        match table.and_then(|table| self.narrowed(table, query)) {
            Some(places) if undone.is_empty() => {
                let table = table.expect("an index belongs to a table");
                places.iter().filter_map(|place| table.objects.get(place)).for_each(|o| page.offer(o));
            }
            _ => {
                let range = (start(query), Bound::Unbounded);
                let namespace = query.namespace.as_ref();
                let inside = |place: &Place| namespace.is_none_or(|n| *n == place.0);
                let current = table.into_iter().flat_map(|t| t.objects.range::<Place, _>(range.clone()));
                let current = current.take_while(|(place, _)| inside(place));
                let older = undone.range::<Place, _>(range.clone()).take_while(|(place, _)| inside(place));
                merge(current, older, |object| page.offer(object));
            }
        }
        let selective = !query.labels.0.is_empty() || !query.fields.0.is_empty() || query.owner.is_some();
        let next = (page.more > 0).then(|| page.items.last().map(|o| o.key.clone())).flatten();
        Listing { revision, items: page.items, next, remaining: (!selective).then_some(page.more) }
    }

    /// The places an index gives for `query`, in order and from its start on; None when no index applies.
    fn narrowed(&self, table: &Table, query: &ListQuery) -> Option<Vec<Place>> {
        let mut sets: Vec<&BTreeSet<Place>> = Vec::new();
        let empty = &EMPTY;
        if let Some((label, value)) = query.labels.equality() {
            sets.push(table.labels.get(label).and_then(|v| v.get(value)).unwrap_or(empty));
        }
        for field in INDEXED_FIELDS {
            if let Some(value) = query.fields.equality(field).filter(|v| !v.is_empty()) {
                sets.push(table.fields.get(&(field, value.to_string())).unwrap_or(empty));
            }
        }
        let inside = |place: &&Place| query.namespace.as_ref().is_none_or(|n| *n == place.0);
        let range = (start(query), Bound::Unbounded);
        if let (Some(name), Some(namespace)) = (query.fields.equality("metadata.name"), &query.namespace) {
            let place = (namespace.clone(), Arc::from(name));
            return Some(std::iter::once(place).filter(|p| within(&range.0, p)).collect());
        }
        if let Some(owner) = &query.owner {
            let keys = self.owned.get(owner).into_iter().flatten().filter(|k| k.resource == query.resource);
            let places = keys.map(place).filter(|p| inside(&p) && within(&range.0, p));
            return Some(places.collect());
        }
        let smallest = sets.into_iter().min_by_key(|set| set.len())?;
        Some(smallest.range::<Place, _>(range).take_while(inside).cloned().collect())
    }
}

static EMPTY: BTreeSet<Place> = BTreeSet::new();

/// Collects one page: takes what matches until it is full, then only counts.
struct Page<'a> {
    query: &'a ListQuery,
    limit: usize,
    items: Vec<Arc<Object>>,
    more: usize,
}

impl Page<'_> {
    fn offer(&mut self, object: &Arc<Object>) {
        if !selected(self.query, object) {
            return;
        }
        match self.items.len() < self.limit {
            true => self.items.push(object.clone()),
            false => self.more += 1,
        }
    }
}

/// Walks both in order; where both have a place, `older` is right.
fn merge<'a>(
    current: impl Iterator<Item = (&'a Place, &'a Arc<Object>)>,
    older: impl Iterator<Item = (&'a Place, &'a Option<Arc<Object>>)>,
    mut take: impl FnMut(&'a Arc<Object>),
) {
    let (mut current, mut older) = (current.peekable(), older.peekable());
    loop {
        let order = match (current.peek(), older.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        if order.is_lt() {
            current.next().into_iter().for_each(|(_, object)| take(object));
        } else {
            if order.is_eq() {
                current.next();
            }
            older.next().and_then(|(_, object)| object.as_ref()).into_iter().for_each(&mut take);
        }
    }
}

fn selected(query: &ListQuery, object: &Object) -> bool {
    query.labels.matches(&object.labels)
        && query.fields.matches(|field| object.field(field))
        && query.owner.as_ref().is_none_or(|owner| object.owners.contains(owner))
}

fn start(query: &ListQuery) -> Bound<Place> {
    match (&query.after, &query.namespace) {
        (Some(key), _) => Bound::Excluded(place(key)),
        (None, Some(namespace)) => Bound::Included((namespace.clone(), Arc::from(""))),
        (None, None) => Bound::Unbounded,
    }
}

fn within(start: &Bound<Place>, place: &Place) -> bool {
    match start {
        Bound::Excluded(first) => place > first,
        Bound::Included(first) => place >= first,
        Bound::Unbounded => true,
    }
}

pub(super) fn place(key: &Key) -> Place {
    (key.namespace.clone(), key.name.clone())
}

fn indexed_fields(object: &Object) -> impl Iterator<Item = (&'static str, &String)> {
    INDEXED_FIELDS
        .iter()
        .filter_map(|f| object.fields.get_key_value(f))
        .filter(|(_, v)| !v.is_empty())
        .map(|(f, v)| (*f, v))
}

/// Takes `item` out of the set at `key`, and the set with it when it was the last: no index outlives its objects.
fn forget<K, Q, T>(map: &mut HashMap<K, BTreeSet<T>>, key: &Q, item: &T)
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ?Sized,
    T: Ord,
{
    if let Some(set) = map.get_mut(key) {
        set.remove(item);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
