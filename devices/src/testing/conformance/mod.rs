//! What every device has to stand, whatever it is: one suite, run for each entry of the registry.
//!
//! [`subjects`] builds every kind of device through [`DeviceConfig::build`]; a kind that is added
//! to the registry does not compile until it has handles here. The checks panic where a device
//! falls short.

mod checks;
mod subjects;

#[cfg(test)]
mod tests;

pub(crate) use checks::start_and_stop;
pub use checks::{CHECKS, Check};
pub use subjects::{Subject, subjects};

#[cfg(doc)]
use crate::registry::DeviceConfig;
