//! Services and the endpoints behind them, kept from their objects. Pure.

use crate::gateway::units::unit;
use crate::store::Object;
use longshore_api::network::{Endpoints, Frame, Name, Protocol, Service};
use longshore_edge::model::Backend;
use longshore_edge::services::{Behind, behind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub const SERVICES: &str = "services";
pub const SLICES: &str = "endpointslices.discovery.k8s.io";

#[derive(Default)]
pub struct Backends {
    services: HashMap<Name, Service>,
    /// By Service, each by its own name.
    slices: HashMap<Name, BTreeMap<Arc<str>, Endpoints>>,
    /// To which Service a slice belongs.
    belongs: HashMap<Name, Name>,
    news: BTreeSet<Name>,
}

impl Backends {
    /// A Service or a slice as it is now, or as it was last.
    pub fn take(&mut self, object: &Object, deleted: bool) {
        let key = Name::new(&*object.key.namespace, &*object.key.name);
        match unit(object).1 {
            Some(Frame::Service(service)) => {
                if deleted {
                    self.services.remove(&key);
                } else {
                    self.services.insert(key.clone(), service);
                }
                self.news.insert(key);
            }
            Some(Frame::Endpoints(slice)) => self.set_slice(key, &object.key.name, Some(slice).filter(|_| !deleted)),
            _ => self.set_slice(key, &object.key.name, None),
        }
    }

    fn set_slice(&mut self, key: Name, name: &Arc<str>, slice: Option<Endpoints>) {
        if let Some(service) = self.belongs.remove(&key) {
            if let Some(slices) = self.slices.get_mut(&service) {
                slices.remove(name);
                if slices.is_empty() {
                    self.slices.remove(&service);
                }
            }
            self.news.insert(service);
        }
        if let Some(slice) = slice {
            let service = Name::new(&key.namespace, &slice.service);
            self.slices.entry(service.clone()).or_default().insert(name.clone(), slice);
            self.belongs.insert(key, service.clone());
            self.news.insert(service);
        }
    }

    /// Services whose endpoints may be others than when this was asked before.
    pub fn news(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.news)
    }

    /// What is behind a backend; nothing, too, where there is no such Service or port.
    pub fn behind(&self, Backend { service, port }: &Backend, protocol: Protocol) -> Behind {
        let slices = self.slices.get(service).into_iter().flat_map(BTreeMap::values);
        let service = self.services.get(service);
        service.and_then(|service| behind(service, slices, port, protocol)).unwrap_or_default()
    }

    /// No slice is known any more.
    pub fn forget_slices(&mut self) {
        self.slices.clear();
        self.belongs.clear();
    }
}
