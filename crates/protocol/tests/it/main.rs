//! The crate as others use it: recorded traffic of official clients, and promises over all inputs.

#[cfg(test)]
mod accept;
#[cfg(test)]
mod amount;
#[cfg(test)]
mod header;
#[cfg(test)]
mod seal;
#[cfg(test)]
mod vectors;
