//! What other rooms keep for as long as a cluster is loaded, and lose with it.

use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// One value of each type, made when it is first asked for. What is kept here must be able to be made anew from the
/// cluster's objects at any time: it dies when the cluster is unloaded or another replica takes it over.
#[derive(Default)]
pub struct Companions(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Companions {
    pub fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut all = self.0.lock();
        let entry = all.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        entry.clone().downcast().unwrap_or_default()
    }
}

impl fmt::Debug for Companions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Companions({})", self.0.lock().len())
    }
}
