//! How a scheduler weighs, as data: pods choose a profile by their `schedulerName`.

/// Kubernetes's own scheduler, by which pods ask for it when they ask for none.
pub const DEFAULT: &str = "default-scheduler";

/// What a node is judged by, each part from 0 to 100 before it is weighted. The order is that of [`Profile::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Part {
    Taints,
    NodeAffinity,
    Spread,
    PodAffinity,
    Room,
    Balance,
    Images,
}

pub const PARTS: usize = 7;

impl Part {
    pub const ALL: [Self; PARTS] =
        [Self::Taints, Self::NodeAffinity, Self::Spread, Self::PodAffinity, Self::Room, Self::Balance, Self::Images];

    /// Kubernetes's name of the plugin that judges it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Taints => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::Spread => "PodTopologySpread",
            Self::PodAffinity => "InterPodAffinity",
            Self::Room => "NodeResourcesFit",
            Self::Balance => "NodeResourcesBalancedAllocation",
            Self::Images => "ImageLocality",
        }
    }
}

/// What counts as good use of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Spreads load: much left is good.
    #[default]
    LeastAllocated,
    /// Packs: little left is good, so that whole nodes stay empty.
    MostAllocated,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The `schedulerName` of its pods.
    pub name: String,
    pub strategy: Strategy,
    /// How much each part counts; 0 switches it off.
    pub weights: [i64; PARTS],
    /// How much a pod's required affinity draws others to it who don't ask for it.
    pub hard_affinity_weight: i64,
    /// Whether pods behind a Service or of one owner are spread over zones and nodes without asking for it.
    pub spreads_by_default: bool,
}

impl Default for Profile {
    /// Kubernetes's weights.
    fn default() -> Self {
        Self {
            name: DEFAULT.into(),
            strategy: Strategy::LeastAllocated,
            weights: [3, 2, 2, 2, 1, 1, 1],
            hard_affinity_weight: 1,
            spreads_by_default: true,
        }
    }
}

/// A cluster's profiles, each with a name of its own. Pods that name none of them are left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiles(pub Vec<Profile>);

impl Default for Profiles {
    fn default() -> Self {
        Self(vec![Profile::default()])
    }
}
