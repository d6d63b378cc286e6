//! Clusters as people make them: a row and a key; nothing is loaded, and nothing runs, until someone asks it something.

use super::{Accounts, Role, records, unavailable};
use crate::store::{NewCluster, StoreError};
use longshore_api::accounts as shapes;
use longshore_api::ids::UserId;
use longshore_api::meta::GroupResource;
use longshore_api::{Status, names};

impl Accounts {
    /// A new, empty cluster of an organization that `user` may administer. 404 for an organization of others, 409 for a name
    /// that it has already.
    pub async fn create_cluster(&self, user: &UserId, new: &shapes::NewCluster) -> Result<shapes::Cluster, Status> {
        if let Some(why) = names::dns1123_label(&new.name).into_iter().next() {
            return Err(Status::bad_request(format!("the cluster's name {:?}: {why}", new.name)));
        }
        let mut theirs = records::memberships(&self.pool, user).await.map_err(unavailable)?;
        if let Some(wanted) = &new.organization {
            theirs.retain(|membership| membership.organization == *wanted);
        }
        let membership = match (theirs.len(), &new.organization) {
            (1, _) => theirs.swap_remove(0),
            (_, Some(organization)) => {
                let resource = GroupResource::new("longshore.dev", "organizations");
                return Err(Status::not_found(&resource, organization.as_str()));
            }
            (_, None) => {
                return Err(Status::bad_request("name the organization: the caller does not belong to just one"));
            }
        };
        let clusters = GroupResource::new("longshore.dev", "clusters");
        if membership.role < Role::Admin {
            let why = "only owners and admins of the organization may make clusters";
            return Err(Status::forbidden(&clusters, &new.name, why));
        }
        let made = self.store.create_cluster(NewCluster::new(membership.organization, &new.name)).await;
        match made {
            Ok(id) => Ok(shapes::Cluster { id, name: new.name.clone() }),
            Err(StoreError::AlreadyExists) => Err(Status::already_exists(&clusters, &new.name)),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}
