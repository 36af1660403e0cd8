//! The agent against scripted sellers, on sockets.

// `cfg(test)` says to clippy that helpers are tests as well.
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod money;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod receipts;
#[cfg(test)]
mod seller;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod v1;
