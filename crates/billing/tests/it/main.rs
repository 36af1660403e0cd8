//! The crate as the gateway uses it.

#[cfg(test)]
mod golden;
#[cfg(test)]
mod price;
