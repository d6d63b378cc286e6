//! Amounts of compute: what a pod asks for, what a node has.

use longshore_api::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whole numbers in the units the scheduler counts in, so that comparing is comparing integers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    pub pods: i64,
    /// Devices and huge pages by name, in whole units.
    pub extended: BTreeMap<String, i64>,
}

/// One named amount.
pub type Amount<'a> = (&'a str, i64);

impl Resources {
    /// Reads a `ResourceList`; what isn't a quantity counts as nothing.
    pub fn of(list: &Value) -> Self {
        let mut all = Self::default();
        for (name, value) in list.as_object().into_iter().flatten() {
            let quantity = match value {
                Value::String(text) => Quantity::parse(text).ok(),
                Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
                _ => None,
            };
            let Some(quantity) = quantity else { continue };
            match name.as_str() {
                "cpu" => all.cpu = quantity.milli_value(),
                "memory" => all.memory = quantity.value(),
                "ephemeral-storage" => all.ephemeral_storage = quantity.value(),
                "pods" => all.pods = quantity.value(),
                _ => {
                    all.extended.insert(name.clone(), quantity.value());
                }
            }
        }
        all
    }

    pub fn add(&mut self, other: &Self) {
        self.each(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Self) {
        self.each(other, i64::saturating_sub);
    }

    /// The larger of both, resource by resource.
    pub fn raise(&mut self, other: &Self) {
        self.each(other, i64::max);
    }

    fn each(&mut self, other: &Self, f: impl Fn(i64, i64) -> i64) {
        self.cpu = f(self.cpu, other.cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = f(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let mine = self.extended.entry(name.clone()).or_default();
            *mine = f(*mine, *amount);
        }
    }

    /// Takes over what `other` names, leaving the rest (pod-level requests override what containers add up to).
    pub fn overridden_by(&mut self, list: &Value) {
        let other = Self::of(list);
        let named = |name: &str| list.get(name).is_some();
        if named("cpu") {
            self.cpu = other.cpu;
        }
        if named("memory") {
            self.memory = other.memory;
        }
        self.extended.extend(other.extended);
    }
}
