//! A PostgreSQL server of a test's own.
//!
//! [`PostgresServer::start`] makes a cluster in a temporary directory and starts it on a Unix socket
//! there: no port, no other user, nothing left behind. A server refuses to run as root, so under root
//! it runs as `postgres` or `nobody`. What a commit promises is what it promises in production:
//! `fsync` is on.

mod programs;
mod server;

pub use crate::server::{PostgresServer, ServerError};
