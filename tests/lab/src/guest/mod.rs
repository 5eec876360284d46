//! The guests that tests and the demo boot, as bootstrap images: squashfs files with a kernel, an
//! initrd and parameters inside, made from distribution packages and scripts of ours.
//!
//! - [`Mini`]: no distribution in it, up in a second, driven over its serial console
//! - [`layout`]: the same guest in every arrangement a bootstrap may have
//! - [`Demo`]: a whole Debian with systemd and an SSH server
//! - [`Images`]: all of them at stable paths, for tests to find

mod bundle;
mod demo;
mod fio;
mod images;
mod initrd;
mod iperf;
pub mod layout;
mod mini;
mod squashfs;

pub use demo::Demo;
pub use images::{IMAGES_VARIABLE, Images};
pub use iperf::Iperf;
pub use mini::Mini;
pub use squashfs::Compressor;
