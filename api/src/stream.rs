//! `/v1/stream`: one WebSocket with many watches and logs, as the page uses it.
