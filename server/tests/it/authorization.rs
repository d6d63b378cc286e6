//! Every resource and subresource, every verb, everyone: the table of who may do what, as one snapshot.
//!
//! Made from the registry, so that a new kind shows up here the day it is added, and its rights are a diff to review.

use longshore_api::ids::{NodeId, UserId};
use longshore_server::accounts::{Identity, Role};
use longshore_server::apiserver::authorize::{Attributes, NoScope, authorize};
use longshore_server::resources::registry;
use std::fmt::Write;

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

#[test]
fn the_role_matrix() {
    let person = |role| Identity::person(UserId::new("u"), "a@b.c", role);
    let everyone = [
        ("anonymous", Identity::anonymous()),
        ("serviceaccount", Identity::service_account("default", "default", "u", None)),
        ("node", Identity::node(NodeId::new("n"), "n1")),
        ("viewer", person(Role::Viewer)),
        ("developer", person(Role::Developer)),
        ("admin", person(Role::Admin)),
        ("owner", person(Role::Owner)),
    ];
    let mut table = String::new();
    for r in registry().all() {
        for subresource in std::iter::once("").chain(r.subresources.iter().map(|s| s.name)) {
            writeln!(table, "{} {}/{subresource}", r.group, r.plural).unwrap();
            for (who, identity) in &everyone {
                let allowed = VERBS.iter().filter(|verb| {
                    let asked = Attributes {
                        verb: verb.to_string(),
                        group: r.group.into(),
                        version: r.version.into(),
                        resource: r.plural.into(),
                        subresource: subresource.into(),
                        namespace: if r.namespaced { "default".into() } else { String::new() },
                        name: "other".into(),
                        is_resource: true,
                        ..Default::default()
                    };
                    authorize(identity, &asked, &NoScope).allowed()
                });
                let allowed: Vec<&str> = allowed.copied().collect();
                let shown = if allowed.len() == VERBS.len() { "all".into() } else { allowed.join(" ") };
                writeln!(table, "  {who}: {shown}").unwrap();
                assert!(*who != "anonymous" || allowed.is_empty());
                assert!(*who != "serviceaccount" || allowed.is_empty());
            }
        }
    }
    insta::assert_snapshot!(table);
}
