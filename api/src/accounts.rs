//! Account API types: requests and answers of `/v1/…`.
