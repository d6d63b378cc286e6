//! What the kernel has of policies, and how it is made to have what it should.
//!
//! First comes what nobody leads to yet: sets with their elements, and chains. One transaction then sends pods to other
//! chains. At last goes what nobody leads to any more.

use super::plan::{Direction, Level, Line, Plan};
use super::table::{self, TABLE};
use crate::network::Error;
use crate::network::links::Ends;
use nlink::netlink::namespace::Netns;
use nlink::netlink::nftables::{Family, Set as NftSet, SetElement, SetElementData, Transaction, Verdict};
use nlink::netlink::{Connection, Nftables};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Rules and elements in one transaction: what they take fits into a socket's buffer as Linux makes it (208 KiB).
const AT_ONCE: usize = 250;

/// The way to one family's table.
pub struct Kernel {
    nftables: Connection<Nftables>,
    family: Family,
}

/// Keys of elements.
type Elements = BTreeSet<Vec<u8>>;

/// What is in the table.
#[derive(Default)]
pub struct Model {
    stands: bool,
    sets: BTreeMap<String, Elements>,
    chains: BTreeMap<Level, BTreeSet<String>>,
    verdicts: BTreeMap<(Direction, IpAddr), String>,
    /// The pods that reach themselves.
    pods: BTreeSet<IpAddr>,
    /// The ruleset's generation after our last change.
    generation: Option<u32>,
}

/// A step on the way; what belongs to one is never divided.
enum Step<'a> {
    AddSet(&'a str, Vec<SetElement>),
    AddElements(&'a str, Vec<SetElement>),
    AddChain(&'a str, &'a [Line]),
    RemoveElements(&'a str, Vec<SetElement>),
    RemoveChain(&'a str),
    RemoveSet(&'a str),
}

fn failed(e: nlink::Error) -> Error {
    Error::netlink("set network policies", e)
}

impl Kernel {
    pub fn new(inside: &Netns, family: Family) -> Result<Self, Error> {
        Ok(Self { nftables: Connection::new_in(inside).map_err(failed)?, family })
    }

    /// Whether someone else has changed the ruleset since.
    pub async fn has_changed(&self, model: &Model) -> Result<bool, Error> {
        Ok(model.generation != Some(self.nftables.generation().await.map_err(failed)?))
    }

    /// Takes the table away; there is none then.
    pub async fn remove(&self) -> Result<Model, Error> {
        self.nftables.del_table_if_exists(TABLE, self.family).await.map_err(failed)?;
        let generation = Some(self.nftables.generation().await.map_err(failed)?);
        Ok(Model { generation, ..Model::default() })
    }

    /// What there is; made anew where it isn't as it should be.
    pub async fn found(&self, ends: Ends) -> Result<Model, Error> {
        let mut model = Model { stands: true, ..Model::default() };
        if !table::base(ends).map_err(failed)?.stand(&self.nftables, TABLE).await? {
            return Ok(model);
        }
        for chain in self.nftables.list_chains_in(TABLE, self.family).await.map_err(failed)? {
            if let Some(level) = table::level(&chain.name) {
                model.chains.entry(level).or_default().insert(chain.name);
            }
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            for element in self.elements(table::verdicts(self.family, direction).name()).await? {
                let chain = match element.data() {
                    Some(SetElementData::Verdict(Verdict::GotoTo(chain))) => chain.as_str().to_owned(),
                    _ => String::new(),
                };
                if let Some(ip) = address(self.family, element.key()) {
                    model.verdicts.insert((direction, ip), chain);
                }
            }
        }
        model.pods = self.elements(table::ITSELF).await?.iter().filter_map(|e| address(self.family, e.key())).collect();
        let fixed = [Direction::Ingress, Direction::Egress].map(|d| table::verdicts(self.family, d).name().to_owned());
        for set in self.nftables.list_sets_in(TABLE, self.family).await.map_err(failed)? {
            // An anonymous one is a rule's own.
            if fixed.contains(&set.name) || set.name == table::ITSELF || set.name.starts_with("__") {
                continue;
            }
            let elements = self.elements(&set.name).await?.into_iter().map(|e| e.key().to_vec()).collect();
            model.sets.insert(set.name, elements);
        }
        Ok(model)
    }

    async fn elements(&self, set: &str) -> Result<Vec<SetElement>, Error> {
        self.nftables.list_set_elements(TABLE, set, self.family).await.map_err(failed)
    }

    /// In transactions of some steps each.
    async fn go(&self, steps: Vec<Step<'_>>) -> Result<(), Error> {
        let (mut transaction, mut weight) = (self.nftables.transaction(), 0);
        for step in steps {
            if weight > 0 && weight + step.weight() > AT_ONCE {
                std::mem::replace(&mut transaction, self.nftables.transaction())
                    .commit(&self.nftables)
                    .await
                    .map_err(failed)?;
                weight = 0;
            }
            weight += step.weight();
            transaction = step.write(self.family, transaction).map_err(failed)?;
        }
        match weight {
            0 => Ok(()),
            _ => transaction.commit(&self.nftables).await.map_err(failed),
        }
    }
}

/// The first address of a key of this family.
fn address(family: Family, key: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Ip6 => key.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => key.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
    }
}

impl Step<'_> {
    fn weight(&self) -> usize {
        1 + match self {
            Self::AddSet(_, elements) | Self::AddElements(_, elements) | Self::RemoveElements(_, elements) => {
                elements.len()
            }
            Self::AddChain(_, lines) => lines.len(),
            Self::RemoveChain(_) | Self::RemoveSet(_) => 0,
        }
    }

    fn write(self, family: Family, to: Transaction) -> Result<Transaction, nlink::Error> {
        let peers = |name: &str| table::peers(family, name);
        Ok(match self {
            Self::AddSet(name, elements) => add(to.add_set(peers(name)), &peers(name), &elements),
            Self::AddElements(name, elements) => add(to, &peers(name), &elements),
            Self::RemoveElements(name, elements) => remove(to, &peers(name), &elements),
            Self::AddChain(name, lines) => {
                let (chain, rules) = table::chain(family, name, lines)?;
                rules.into_iter().fold(to.add_chain(chain), Transaction::add_rule)
            }
            Self::RemoveChain(name) => to.flush_chain(TABLE, name, family).del_chain(TABLE, name, family),
            Self::RemoveSet(name) => to.del_set(TABLE, name, family),
        })
    }
}

fn add(to: Transaction, set: &NftSet, elements: &[SetElement]) -> Transaction {
    elements.chunks(AT_ONCE).fold(to, |to, some| to.add_set_elements(set, some))
}

fn remove(to: Transaction, set: &NftSet, elements: &[SetElement]) -> Transaction {
    elements.chunks(AT_ONCE).fold(to, |to, some| to.del_set_elements(set, some))
}

impl Model {
    pub fn stands(&self) -> bool {
        self.stands
    }

    pub fn has(&self, set: &str) -> bool {
        self.sets.contains_key(set)
    }

    /// Makes the table have what is in `plan`, with these elements of sets; sets that aren't among them stay as they are.
    pub async fn become_so(
        &mut self,
        kernel: &Kernel,
        plan: &Plan,
        elements: BTreeMap<String, Elements>,
    ) -> Result<(), Error> {
        let old_sets: Vec<String> = self.sets.keys().filter(|name| !plan.sets.contains_key(*name)).cloned().collect();
        kernel.go(self.coming(kernel.family, plan, &elements)).await?;
        self.switch(kernel, plan).await?;
        kernel.go(self.going(plan, &old_sets)).await?;
        self.chains = plan.chains.iter().map(|(level, chains)| (*level, chains.keys().cloned().collect())).collect();
        self.sets.retain(|name, _| plan.sets.contains_key(name));
        self.sets.extend(elements);
        for name in plan.sets.keys() {
            self.sets.entry(name.clone()).or_default();
        }
        self.generation = Some(kernel.nftables.generation().await.map_err(failed)?);
        Ok(())
    }

    fn coming<'a>(&self, family: Family, plan: &'a Plan, elements: &'a BTreeMap<String, Elements>) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let nothing = Elements::new();
        for (name, set) in plan.sets.iter().filter(|(name, _)| !self.has(name)) {
            steps.push(Step::AddSet(name, table::range_elements(family, set)));
        }
        for (name, wanted) in elements {
            let now = self.sets.get(name).unwrap_or(&nothing);
            let parts = |keys: BTreeSet<&Vec<u8>>| {
                let all: Vec<SetElement> = keys.into_iter().map(|key| SetElement::new(key.clone())).collect();
                all.chunks(AT_ONCE).map(<[SetElement]>::to_vec).collect::<Vec<_>>()
            };
            let (new, old) = (parts(wanted.difference(now).collect()), parts(now.difference(wanted).collect()));
            steps.extend(new.into_iter().map(|some| Step::AddElements(name, some)));
            steps.extend(old.into_iter().map(|some| Step::RemoveElements(name, some)));
        }
        for (level, chains) in &plan.chains {
            let there = self.chains.get(level);
            let new = chains.iter().filter(|(name, _)| !there.is_some_and(|there| there.contains(*name)));
            steps.extend(new.map(|(name, lines)| Step::AddChain(name, lines)));
        }
        steps
    }

    fn going<'a>(&'a self, plan: &Plan, old_sets: &'a [String]) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        for (level, chains) in self.chains.iter().rev() {
            let kept = plan.chains.get(level);
            let old = chains.iter().filter(|name| !kept.is_some_and(|kept| kept.contains_key(*name)));
            steps.extend(old.map(|name| Step::RemoveChain(name)));
        }
        steps.extend(old_sets.iter().map(|name| Step::RemoveSet(name)));
        steps
    }

    /// Sends pods where the plan says, all at once.
    async fn switch(&mut self, kernel: &Kernel, plan: &Plan) -> Result<(), Error> {
        let mut wanted = BTreeMap::new();
        for (direction, pods) in [(Direction::Ingress, &plan.ingress), (Direction::Egress, &plan.egress)] {
            wanted.extend(pods.iter().map(|(pod, chain)| ((direction, *pod), chain.clone())));
        }
        let pods: BTreeSet<IpAddr> = wanted.keys().map(|(_, pod)| *pod).collect();
        if (&wanted, &pods) == (&self.verdicts, &self.pods) {
            return Ok(());
        }
        let mut change = kernel.nftables.transaction();
        for direction in [Direction::Ingress, Direction::Egress] {
            let other = |of: &BTreeMap<(Direction, IpAddr), String>, key: &(Direction, IpAddr), chain: &String| {
                key.0 == direction && of.get(key) != Some(chain)
            };
            let old = self.verdicts.iter().filter(|(key, chain)| other(&wanted, key, chain));
            let old: Vec<SetElement> = old.map(|((_, pod), _)| table::address(*pod)).collect();
            let new = wanted.iter().filter(|(key, chain)| other(&self.verdicts, key, chain));
            let new = new.map(|((_, pod), chain)| table::decided_by(*pod, chain)).collect::<Result<Vec<_>, _>>();
            let map = table::verdicts(kernel.family, direction);
            change = add(remove(change, &map, &old), &map, &new.map_err(failed)?);
        }
        let itself = |pods: &BTreeSet<IpAddr>, others: &BTreeSet<IpAddr>| {
            pods.difference(others).map(|pod| table::to_itself(*pod)).collect::<Vec<_>>()
        };
        let set = table::itself(kernel.family);
        change = add(remove(change, &set, &itself(&self.pods, &pods)), &set, &itself(&pods, &self.pods));
        change.commit(&kernel.nftables).await.map_err(failed)?;
        (self.verdicts, self.pods) = (wanted, pods);
        Ok(())
    }
}
