//! What `dev` and the first start of an installation make: an organization, its owner, a cluster, and their credentials.

use super::{Accounts, password, records, unavailable};
use crate::store::NewCluster;
use longshore_api::Status;
use longshore_api::ids::{ClusterId, OrganizationId, UserId};

/// The first organization, its cluster and its owner.
#[derive(Clone, Debug)]
pub struct Founded {
    pub organization: OrganizationId,
    pub cluster: ClusterId,
    pub owner: UserId,
    pub email: String,
}

/// Credentials of the founder that must stay the same over restarts; the caller keeps them in private files.
#[derive(Clone)]
pub struct FounderSecrets {
    pub password: String,
    pub api_token: String,
    /// The secret part of the join token.
    pub join_secret: String,
}

impl FounderSecrets {
    pub fn random() -> Self {
        Self {
            password: password::secret()[..20].to_string(),
            api_token: format!("{}{}", super::authenticate::API_TOKEN_PREFIX, password::secret()),
            join_secret: password::secret(),
        }
    }
}

impl Accounts {
    /// Organization `default` with cluster `default` and an owner. Idempotent; a password that was changed since stays.
    pub async fn found(&self, email: &str, secrets: &FounderSecrets) -> Result<Founded, Status> {
        let hash = password::hash(&secrets.password).map_err(Status::internal)?;
        let (organization, owner) = (password::random_id("o"), password::random_id("u"));
        let organization = records::found_organization(
            &self.pool,
            &OrganizationId::new(organization),
            "default",
            &UserId::new(owner),
            email,
            &hash,
        )
        .await
        .map_err(unavailable)?;
        let (person, _) = records::person_by_email(&self.pool, email)
            .await
            .map_err(unavailable)?
            .ok_or_else(|| Status::internal("the founder's account is gone"))?;
        let known = records::cluster_by_name(&self.pool, &organization, "default").await.map_err(unavailable)?;
        let cluster = match known {
            Some(id) => id,
            None => {
                let new = NewCluster::new(organization.clone(), "default");
                self.store.create_cluster(new).await.map_err(|error| Status::unavailable(error.to_string()))?
            }
        };
        Ok(Founded { organization, cluster, owner: person.user, email: person.email })
    }

    /// Makes the founder's API token and join token good; neither expires.
    pub async fn keep_founder_tokens(
        &self,
        founded: &Founded,
        secrets: &FounderSecrets,
    ) -> Result<longshore_api::join_token::JoinToken, Status> {
        let digest = password::digest(&secrets.api_token);
        records::put_api_token(&self.pool, &founded.owner, "dev", "dev", &digest, None).await.map_err(unavailable)?;
        let row = records::ClusterRow {
            id: founded.cluster.clone(),
            organization: founded.organization.clone(),
            name: "default".into(),
        };
        let digest = password::digest(&secrets.join_secret);
        records::insert_join_token(&self.pool, &row, &digest, &founded.email, None).await.map_err(unavailable)?;
        Ok(self.join_token(&founded.cluster, secrets.join_secret.clone()))
    }

    /// Sets the password of the person with this address; their sessions end.
    pub async fn set_password(&self, email: &str, password: &str) -> Result<(), Status> {
        if password.len() < password::SHORTEST || password.len() > password::LONGEST {
            let bounds = format!("{} to {} bytes", password::SHORTEST, password::LONGEST);
            return Err(Status::bad_request(format!("a password has {bounds}")));
        }
        let found = records::person_by_email(&self.pool, email).await.map_err(unavailable)?;
        let (person, _) = found.ok_or_else(|| Status::bad_request("nobody has this email address"))?;
        let hash = password::hash(password).map_err(Status::internal)?;
        records::set_password(&self.pool, &person.user, &hash).await.map_err(unavailable)
    }
}
