//! What is owed, by whom, and why.
//!
//! Everything here is pure: bytes, time and ids come in as arguments; prices, usage and states come
//! out. Nothing reads a clock, a file or a socket.

mod payment;

pub use crate::payment::{Event, Illegal, Payment, Release};
