//! Where the store's errors become `Status`: the one place.

use crate::resources::Resource;
use crate::store::{StoreError, WriteError};
use longshore_api::Status;

/// How long a client should wait before it asks again for a revision that hasn't happened yet.
const RETRY_FUTURE_SECONDS: u32 = 1;

pub fn store(error: StoreError) -> Status {
    match error {
        StoreError::NotFound => Status::no_such_path(),
        StoreError::AlreadyExists => Status::failure(409, "AlreadyExists", error.to_string()),
        StoreError::Compacted { oldest } => {
            let oldest = oldest.0;
            Status::expired(format!(
                "The resourceVersion for the provided watch is too old; the oldest kept is {oldest}."
            ))
        }
        StoreError::Future { current } => {
            Status::timeout(format!("Too large resource version, current: {}", current.0), RETRY_FUTURE_SECONDS)
                .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
        }
        StoreError::NotOwner { .. } | StoreError::Unavailable(_) => Status::unavailable(error.to_string()),
        StoreError::Damaged(what) => {
            tracing::error!(what, "the store is damaged: {what}");
            Status::internal("the stored object could not be read")
        }
    }
}

/// A revision that lies ahead, as Kubernetes words it.
pub fn future(asked: i64, current: i64) -> Status {
    let message = format!("Too large resource version: {asked}, current: {current}");
    Status::timeout(message, RETRY_FUTURE_SECONDS).with_cause(
        "ResourceVersionTooLarge",
        "Too large resource version",
        "",
    )
}

pub fn write(error: WriteError, resource: &Resource, name: &str) -> Status {
    let group_resource = resource.group_resource();
    match error {
        WriteError::AlreadyExists => Status::already_exists(&group_resource, name),
        WriteError::NotFound => Status::not_found(&group_resource, name),
        WriteError::Conflict => Status::modified(&group_resource, name),
        WriteError::TooLarge => super::decode::too_large(),
        WriteError::Busy { retry_after_seconds } => Status::too_many_requests(
            "The cluster has too many writes waiting, please try again later.",
            retry_after_seconds,
        ),
        WriteError::Unavailable(why) => Status::unavailable(why),
        WriteError::Full => Status::failure(507, "InsufficientStorage", error.to_string()),
        WriteError::Unknown => Status::timeout("the write's outcome is not known; look before you try again", 0),
    }
}
