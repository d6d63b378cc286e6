//! The cluster and namespace that the page looks at, by its address, and requests to it.

use super::http::{self, Answer, Failure};
use super::session;
use leptos::prelude::*;
use leptos_router::hooks::{use_location, use_params_map, use_query_map};
use longshore_api::accounts::{Cluster, Organization};
use longshore_api::ids::ClusterId;
use longshore_page_model::kinds::{self, Kind, segment};

/// What every page of a cluster needs; made once, by the shell.
#[derive(Clone, Copy)]
pub struct Scope {
    pub cluster: Memo<ClusterId>,
    /// None is all of them.
    pub namespace: Memo<Option<String>>,
    /// Kinds that the cluster said it has; empty until discovery answered.
    pub discovered: RwSignal<Vec<Kind>>,
}

/// The cluster in the address: `/c/{cluster}/…`.
pub fn provide_scope() -> Scope {
    let location = use_location();
    let cluster = Memo::new(move |_| {
        let path = location.pathname.get();
        ClusterId::new(path.split('/').nth(2).unwrap_or_default())
    });
    let query = use_query_map();
    let namespace = Memo::new(move |_| query.with(|q| q.get("ns")).filter(|ns| !ns.is_empty()));
    let scope = Scope { cluster, namespace, discovered: RwSignal::new(Vec::new()) };
    Effect::new(move || {
        let cluster = cluster.get();
        leptos::task::spawn_local(async move { scope.discover(cluster).await });
    });
    provide_context(scope);
    scope
}

pub fn scope() -> Scope {
    expect_context::<Scope>()
}

impl Scope {
    async fn discover(self, cluster: ClusterId) {
        const AGGREGATED: &str =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList, application/json";
        let mut kinds = Vec::new();
        for root in ["/api", "/apis"] {
            let path = format!("/clusters/{cluster}{root}");
            if let Ok(answer) = http::send("GET", &path, AGGREGATED, None).await {
                kinds.extend(kinds::discovered(&answer.text).unwrap_or_default());
            }
        }
        self.discovered.try_set(kinds);
    }

    /// A path of the cluster's API as the server has it.
    pub fn url(self, path: &str) -> String {
        format!("/clusters/{}{path}", self.cluster.get_untracked())
    }

    pub fn kind(self, slug: &str) -> Option<Kind> {
        self.discovered.with(|d| Kind::by_slug(slug, d))
    }

    pub fn home(self) -> String {
        self.page("")
    }

    /// A page of this cluster, in this namespace: `/apply`.
    pub fn page(self, rest: &str) -> String {
        let query = self.namespace.get().map(|ns| format!("?ns={}", segment(&ns))).unwrap_or_default();
        format!("/c/{}{rest}{query}", self.cluster.get())
    }

    /// The list of a kind.
    pub fn list(self, slug: &str) -> String {
        self.page(&format!("/{slug}"))
    }

    /// An object's page. Cluster-scoped ones have `-` where the namespace stands, which no namespace can be called.
    pub fn object(self, slug: &str, namespace: &str, name: &str) -> String {
        let namespace = if namespace.is_empty() { "-" } else { namespace };
        self.page(&format!("/{slug}/{}/{}", segment(namespace), segment(name)))
    }

    pub async fn get<T: serde::de::DeserializeOwned>(self, path: &str) -> Result<T, Failure> {
        http::get(&self.url(path)).await
    }
    pub async fn patch(self, path: &str, kind: &'static str, body: serde_json::Value) -> Result<Answer, Failure> {
        http::patch(&self.url(path), kind, &body).await
    }
    pub async fn delete(self, path: &str) -> Result<Answer, Failure> {
        http::delete(&self.url(path)).await
    }
    pub async fn send(self, method: &str, path: &str, body: http::Body<'_>) -> Result<Answer, Failure> {
        http::send(method, &self.url(path), http::JSON, body).await
    }

    /// The organization and cluster by name, where the session has them.
    pub fn place(self) -> Option<(Organization, Cluster)> {
        let cluster = self.cluster.get();
        let session = session::session()?;
        session.organizations.into_iter().find_map(|organization| {
            let found = organization.clusters.iter().find(|c| c.id == cluster).cloned()?;
            Some((organization, found))
        })
    }
}

/// A parameter of the route, or an empty text.
pub fn parameter(name: &'static str) -> Memo<String> {
    let parameters = use_params_map();
    Memo::new(move |_| parameters.with(|p| p.get(name)).unwrap_or_default())
}

/// A part of the address's query; setting it replaces the address, so that typing doesn't fill the history.
pub fn query_part(name: &'static str) -> (Memo<String>, impl Fn(String) + Clone + Send + Sync + 'static) {
    let query = use_query_map();
    let navigate = leptos_router::hooks::use_navigate();
    let location = use_location();
    let value = Memo::new(move |_| query.with(|q| q.get(name)).unwrap_or_default());
    let set = move |new: String| {
        let mut map = query.get_untracked();
        map.remove(name);
        if !new.is_empty() {
            map.insert(name, new);
        }
        let to = format!("{}{}", location.pathname.get_untracked(), map.to_query_string());
        navigate(
            &to,
            leptos_router::NavigateOptions { replace: true, scroll: false, resolve: false, ..Default::default() },
        );
    };
    (value, set)
}
